//! The MAC vectors of the specification, computed by the program that the kernel runs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use serde_json::Value;
use trireme_tests_differential::Bed;

/// One MAC: key, the 80 bytes of the header, the receiver's token and nonce, and what is to come out.
struct Vector {
    name: String,
    key: Vec<u8>,
    header: Vec<u8>,
    token: Vec<u8>,
    nonce: Vec<u8>,
    mac: Vec<u8>,
}

#[test]
fn every_mac_of_the_specification_is_the_same_in_the_kernel() {
    let vectors: Vec<_> = macs().into_iter().chain(segments()).collect();
    assert!(vectors.len() > 10);
    Bed::run(|bed| {
        for Vector { name, key, header, token, nonce, mac } in &vectors {
            let frame = [&[0; 14][..], key, header, token, nonce].concat();
            let (verdict, out) = bed.run_program("mac_of", 0, &frame);
            assert_eq!((verdict, &out[14..30]), (-1, &mac[..]), "{name}");
            assert_eq!(out[30..], frame[30..], "{name}: nothing else changes");
        }
    });
    eprintln!("{} MACs", vectors.len());
}

fn macs() -> Vec<Vector> {
    let file = file(include_str!("../../../docs/spec/vectors/macs.json"));
    let vector = |mac: &Value| Vector {
        name: mac["name"].to_string(),
        key: bytes(&mac["key"]),
        // What stands in the place of the MAC itself must not matter.
        header: [bytes(&mac["header_0_40"]), vec![0xa5; 16], bytes(&mac["header_56_80"])].concat(),
        token: bytes(&mac["peer_token"]),
        nonce: bytes(&mac["peer_nonce"]),
        mac: bytes(&mac["mac"]),
    };
    file["macs"].as_array().unwrap().iter().map(vector).collect()
}

/// The segments of the handshakes that carry a MAC.
fn segments() -> Vec<Vector> {
    let file = file(include_str!("../../../docs/spec/vectors/handshake.json"));
    let mut vectors = Vec::new();
    for handshake in file["handshakes"].as_array().unwrap() {
        for segment in handshake["segments"].as_array().unwrap() {
            let payload = bytes(&segment["payload"]);
            let (kind, has_mac) = (payload[4], payload[5] & 2 != 0);
            if !has_mac {
                continue;
            }
            let asks = segment["meaning"].as_str().unwrap().contains("asks to begin");
            let from = segment["from"].as_str().unwrap();
            let to = if from == "initiator" { "responder" } else { "initiator" };
            let receiver = &handshake[to];
            vectors.push(Vector {
                name: format!("{}: {}", handshake["name"], segment["meaning"]),
                key: bytes(&handshake[from]["mac_key"]),
                header: payload[..80].to_vec(),
                token: bytes(&receiver["token_id"]),
                // Whoever begins has seen no nonce of the other's, nor has who asks the other to begin over UDP.
                nonce: if kind == 1 || asks { vec![0; 16] } else { bytes(&receiver["nonce"]) },
                mac: payload[40..56].to_vec(),
            });
        }
    }
    vectors
}

fn file(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
