//! trireme-bpf.
