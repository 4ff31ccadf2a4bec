//! Properties of views, edits and builders on random packets.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod edits;
mod generate;
mod icmp;
mod parse;
mod split;
mod tap;
