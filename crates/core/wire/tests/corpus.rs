//! Replays the committed fuzz corpus.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(unreachable_pub, reason = "the fuzz targets share these functions")]
#[path = "../../../../fuzz/src/wire.rs"]
mod bodies;

#[expect(unreachable_pub, reason = "other crates share this file")]
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn corpus_of_ip_tcp_holds() {
    replay("ip_tcp", 1, bodies::ip_tcp);
}

#[test]
fn corpus_of_ip_datagram_holds() {
    replay("ip_datagram", 1, bodies::ip_datagram);
}

#[test]
fn corpus_of_tap_header_holds() {
    replay("tap_header", 1, bodies::tap_header);
}

#[test]
fn corpus_of_icmp_error_holds() {
    replay("icmp_error", 1, bodies::icmp_error);
}

#[test]
fn corpus_of_edits_holds() {
    replay("edits", 1, bodies::edits);
}
