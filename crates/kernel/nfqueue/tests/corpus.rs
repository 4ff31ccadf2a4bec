//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(unreachable_pub, reason = "the fuzz target shares these functions")]
#[path = "../../../../fuzz/src/nfqueue.rs"]
mod bodies;

#[expect(unreachable_pub, reason = "other crates share this file")]
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn corpus_of_nfqueue_holds() {
    replay("nfqueue", 1, bodies::nfqueue);
}
