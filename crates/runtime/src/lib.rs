//! trireme-runtime.
