//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz targets share these functions")]
#[path = "../../../../fuzz/src/token.rs"]
mod bodies;

#[test]
fn corpus_of_token_holds() {
    replay("token", bodies::token);
}

#[test]
fn corpus_of_credential_holds() {
    replay("credential", bodies::credential);
}

/// Runs a fuzz body over every file of its corpus, whole and cut at every byte.
fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        for end in 0..=input.len() {
            body(input.get(..end).unwrap());
        }
        files += 1;
    }
    assert!(files >= 10, "{} holds {files} files", corpus.display());
}
