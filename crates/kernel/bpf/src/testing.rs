//! Running the programs on frames without a network, and looking into the maps; for tests alone.

use std::io;
use std::os::fd::AsFd as _;

use trireme_netns::Namespace;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::batch::{Batched, Cursor, Reading};
use crate::error::Cause;
use crate::run::run;
use crate::{Hook, PlaneError, object, sys};

/// Key and value of a map as bytes.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Room for what a program may make longer.
const GROWTH: usize = 4096;

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
            run(program.as_fd(), context.as_bytes(), frame, GROWTH)
        } else {
            home.run(|| run(program.as_fd(), context.as_bytes(), frame, GROWTH))
                .map_err(|error| failed(error.into()))?
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
