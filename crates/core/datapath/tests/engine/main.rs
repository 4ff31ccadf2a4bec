//! Two engines back to back, with hand-made segments for every trap that the specification names.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]

mod addresses;
mod changes;
mod control;
mod corruption;
mod datagrams;
mod essentials;
mod events;
mod exchange;
mod exchange_attacks;
mod floods;
mod fragments;
mod hand_over;
mod handshake;
mod known_peers;
mod lessons;
mod observe;
mod proof;
mod replays;
mod restart;
mod roll_over;
mod support;
mod units;
