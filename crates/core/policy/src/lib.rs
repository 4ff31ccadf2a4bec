//! trireme-policy.
