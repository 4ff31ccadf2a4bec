//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz targets share these functions")]
#[path = "../../../../fuzz/src/wire.rs"]
mod bodies;

#[test]
fn corpus_of_ip_tcp_holds() {
    replay("ip_tcp", bodies::ip_tcp);
}

#[test]
fn corpus_of_tap_header_holds() {
    replay("tap_header", bodies::tap_header);
}

#[test]
fn corpus_of_icmp_error_holds() {
    replay("icmp_error", bodies::icmp_error);
}

#[test]
fn corpus_of_edits_holds() {
    replay("edits", bodies::edits);
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
