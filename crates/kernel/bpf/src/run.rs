//! Running a program once, on a frame of our own.

#![expect(unsafe_code, reason = "the loader cannot run a program of this kind")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sys::{self, Attributes, address, address_mut};

const PROG_TEST_RUN: libc::c_long = 10;

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

/// Runs a program on a frame with that context, or none if it is empty; returns its verdict and the frame as it left
/// it, which may have grown by `growth`.
pub(crate) fn run(
    program: BorrowedFd<'_>,
    context: &[u8],
    frame: &[u8],
    growth: usize,
) -> io::Result<(i32, Vec<u8>)> {
    let mut out = vec![0_u8; frame.len() + growth];
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
    let mut attributes = RunAttributes {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        verdict: 0,
        size_in: size(frame)?,
        size_out: size(&out)?,
        data_in: address(frame),
        data_out: address_mut(&mut out),
        repeat: 1,
        duration: 0,
        context_size_in: size(context)?,
        context_size_out: 0,
        context_in: if context.is_empty() { 0 } else { address(context) },
        context_out: 0,
        flags: 0,
        cpu: 0,
        batch: 0,
        pad: 0,
    };
    // SAFETY: BPF_PROG_TEST_RUN reads `size_in` bytes of `frame` and `context_size_in` of `context`, and writes at most
    // `size_out` bytes to `out`; all three have those sizes and outlive the call, and the descriptor is open.
    unsafe { sys::bpf(PROG_TEST_RUN, &mut attributes) }?;
    out.truncate(usize::try_from(attributes.size_out).unwrap_or(0));
    Ok((attributes.verdict.cast_signed(), out))
}
