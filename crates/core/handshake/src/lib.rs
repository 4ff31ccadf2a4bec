//! trireme-handshake.
