//! trireme.
