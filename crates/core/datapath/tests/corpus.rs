//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz target shares these functions")]
#[path = "../../../../fuzz/src/engine.rs"]
mod bodies;

/// How far apart the cuts are: every run builds an engine.
const STRIDE: usize = 23;

#[test]
fn corpus_of_engine_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/engine");
    let mut files = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        bodies::engine(&input);
        for end in (0..input.len()).step_by(STRIDE) {
            bodies::engine(input.get(..end).unwrap());
        }
        files += 1;
    }
    assert!(files >= 10, "{} holds {files} files", corpus.display());
}
