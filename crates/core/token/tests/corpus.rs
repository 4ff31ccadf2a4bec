//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(unreachable_pub, reason = "the fuzz targets share these functions")]
#[path = "../../../../fuzz/src/token.rs"]
mod bodies;

#[expect(unreachable_pub, reason = "other crates share this file")]
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn corpus_of_token_holds() {
    replay("token", 1, bodies::token);
}

#[test]
fn corpus_of_credential_holds() {
    replay("credential", 1, bodies::credential);
}
