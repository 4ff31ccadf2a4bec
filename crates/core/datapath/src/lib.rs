//! trireme-datapath.
