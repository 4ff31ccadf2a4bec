//! trireme-api.
