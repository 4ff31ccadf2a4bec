//! trireme-flow.
