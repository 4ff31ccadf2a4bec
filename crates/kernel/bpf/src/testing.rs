//! Running the programs on frames without a network, and looking into the maps; for tests alone.

#![expect(unsafe_code, reason = "the loader cannot run a program of this kind")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use trireme_netns::Namespace;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::batch::{Batched, Cursor, Reading};
use crate::error::Cause;
use crate::sys::{self, Attributes, address, address_mut};
use crate::{Hook, PlaneError, object};

const PROG_TEST_RUN: libc::c_long = 10;

/// Key and value of a map as bytes.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Room for what a program may make longer.
const GROWTH: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RunAttributes {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

impl Attributes for RunAttributes {}

/// `struct __sk_buff`, of which the kernel takes few fields from outside.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Context {
    before: [u32; 10],
    ifindex: u32,
    between: [u32; 33],
    gso_size: u32,
    behind: [u32; 3],
}

const _: () = assert!(size_of::<Context>() == 192);

impl crate::Plane {
    /// Runs the program of a hook on an Ethernet frame as if it had come along at interface `ifindex` of the plane's
    /// namespace; returns its verdict (-1 pass, 2 drop, 7 consumed) and the frame as it left it.
    ///
    /// # Errors
    /// [`PlaneError::Map`] with the kernel's account if it refuses the frame.
    pub fn test_run(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> Result<(i32, Vec<u8>), PlaneError> {
        let name = match hook {
            Hook::FromPu => "from_pu",
            Hook::ToPu => "to_pu",
        };
        self.test_run_program(name, ifindex, 0, frame)
    }

    /// The same for any program of the object; `gso_size` other than zero makes a packet that is to be cut into segments.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if there is no such program or the kernel refuses the frame.
    pub fn test_run_program(
        &mut self,
        name: &'static str,
        ifindex: u32,
        gso_size: u16,
        frame: &[u8],
    ) -> Result<(i32, Vec<u8>), PlaneError> {
        let failed = |source: Cause| PlaneError::Map { map: "test run", source };
        let (programs, home) = self.programs();
        let program = object::program(programs, name).map_err(failed)?;
        let program = program.fd().map_err(|error| failed(error.into()))?;
        let context = Context {
            before: [0; 10],
            ifindex,
            between: [0; 33],
            gso_size: u32::from(gso_size),
            behind: [0; 3],
        };
        // The interface is looked for in the namespace of the calling thread.
        let here = Namespace::current().map_err(|error| failed(error.into()))?;
        let ran = if here.id() == home.id() {
            run(program.as_fd(), &context, frame)
        } else {
            home.run(|| run(program.as_fd(), &context, frame)).map_err(|error| failed(error.into()))?
        };
        ran.map_err(|error| failed(error.into()))
    }

    /// Returns all entries of a hash map or array as bytes, in no order.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if there is no such map or it is of another kind.
    pub fn dump(&self, map: &str) -> Result<Vec<Entry>, PlaneError> {
        let failed = |source: Cause| PlaneError::Map { map: "dump", source };
        entries(&self.map_path(map)).map_err(|error| failed(error.into()))
    }
}

fn run(program: BorrowedFd<'_>, context: &Context, frame: &[u8]) -> io::Result<(i32, Vec<u8>)> {
    let context = std::slice::from_ref(context);
    let mut out = vec![0_u8; frame.len() + GROWTH];
    let mut attributes = RunAttributes {
        program: u32::try_from(program.as_raw_fd()).unwrap_or(u32::MAX),
        verdict: 0,
        size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        size_out: u32::try_from(out.len()).unwrap_or(0),
        data_in: address(frame),
        data_out: address_mut(&mut out),
        repeat: 1,
        duration: 0,
        context_size_in: u32::try_from(size_of::<Context>()).unwrap_or(0),
        context_size_out: 0,
        context_in: address(context),
        context_out: 0,
        flags: 0,
        cpu: 0,
        batch: 0,
        pad: 0,
    };
    // SAFETY: BPF_PROG_TEST_RUN reads `size_in` bytes of `frame` and the context, and writes at most `size_out` bytes
    // to `out`; all three have those sizes and outlive the call, and the descriptor is open.
    unsafe { sys::bpf(PROG_TEST_RUN, &mut attributes) }?;
    out.truncate(usize::try_from(attributes.size_out).unwrap_or(0));
    Ok((attributes.verdict.cast_signed(), out))
}

fn entries(pin: &std::path::Path) -> io::Result<Vec<Entry>> {
    let map = Batched::new(sys::open(pin)?)?;
    let mut all = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let slice = map.read(Reading::Keep, from, 256)?;
        let (keys, values) = (slice.keys.chunks(map.key), slice.values.chunks(map.value));
        all.extend(keys.zip(values).map(|(key, value)| (key.to_vec(), value.to_vec())));
        cursor = slice.next;
    }
    Ok(all)
}
