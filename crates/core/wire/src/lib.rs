//! trireme-wire.
