//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(unreachable_pub, reason = "the fuzz target shares these functions")]
#[path = "../../../../fuzz/src/engine.rs"]
mod bodies;

#[expect(unreachable_pub, reason = "other crates share this file")]
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

/// How far apart the cuts are: every run builds an engine.
const STRIDE: usize = 23;

#[test]
fn corpus_of_engine_holds() {
    replay("engine", STRIDE, bodies::engine);
}
