//! trireme-conntrack.
