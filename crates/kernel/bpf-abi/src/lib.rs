//! trireme-bpf-abi.
