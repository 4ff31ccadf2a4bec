//! trireme-testkit.
