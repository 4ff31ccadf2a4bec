//! Runs a fuzz body over its committed corpus.

use std::fs;
use std::path::Path;

/// Every file of `corpus/<target>/`, whole and cut at every `stride`-th byte.
pub fn replay(target: &str, stride: usize, body: fn(&[u8])) {
    // The file is part of the tests of crates that all lie at the same depth.
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        body(&input);
        for end in (0..input.len()).step_by(stride) {
            body(input.get(..end).unwrap());
        }
        files += 1;
    }
    assert!(files >= 10, "{} holds {files} files", corpus.display());
}
