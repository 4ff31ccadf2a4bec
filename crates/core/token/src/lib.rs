//! trireme-token.
