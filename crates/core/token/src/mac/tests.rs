use super::*;

/// SipHash-2-4 with 128-bit output, written from the paper and its reference code.
fn reference(key: &[u8; 16], message: &[u8]) -> [u8; 16] {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let rounds = |v: &mut [u64; 4], count: usize| {
        for _ in 0..count {
            v[0] = v[0].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(13) ^ v[0];
            v[0] = v[0].rotate_left(32);
            v[2] = v[2].wrapping_add(v[3]);
            v[3] = v[3].rotate_left(16) ^ v[2];
            v[0] = v[0].wrapping_add(v[3]);
            v[3] = v[3].rotate_left(21) ^ v[0];
            v[2] = v[2].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(17) ^ v[2];
            v[2] = v[2].rotate_left(32);
        }
    };
    let whole = message.len() / 8 * 8;
    let mut last = [0; 8];
    last[..message.len() - whole].copy_from_slice(&message[whole..]);
    last[7] = u8::try_from(message.len() % 256).unwrap();
    for block in message[..whole].chunks(8).chain([last.as_slice()]) {
        v[3] ^= word(block);
        rounds(&mut v, 2);
        v[0] ^= word(block);
    }
    v[2] ^= 0xee;
    rounds(&mut v, 4);
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    rounds(&mut v, 4);
    let second = v[0] ^ v[1] ^ v[2] ^ v[3];
    [first.to_le_bytes(), second.to_le_bytes()].concat().try_into().unwrap()
}

/// The first vectors of `vectors_sip128` in the reference implementation: key 00..0f, message 00..n-1.
const OFFICIAL: [&str; 16] = [
    "a3817f04ba25a8e66df67214c7550293",
    "da87c1d86b99af44347659119b22fc45",
    "8177228da4a45dc7fca38bdef60affe4",
    "9c70b60c5267a94e5f33b6b02985ed51",
    "f88164c12d9c8faf7d0f6e7c7bcd5579",
    "1368875980776f8854527a07690e9627",
    "14eeca338b208613485ea0308fd7a15e",
    "a1f1ebbed8dbc153c0b84aa61ff08239",
    "3b62a9ba6258f5610f83e264f31497b4",
    "264499060ad9baabc47f8b02bb6d71ed",
    "00110dc378146956c95447d3f3d0fbba",
    "0151c568386b6677a2b4dc6f81e5dc18",
    "d626b266905ef35882634df68532c125",
    "9869e247e9c08b10d029934fc4b952f7",
    "31fcefac66d7de9c7ec7485fe4494902",
    "5493e99933b0a8117e08ec0f97cfc3d9",
];

fn bytes<const N: usize>(start: u8) -> [u8; N] {
    std::array::from_fn(|index| start.wrapping_add(u8::try_from(index).unwrap()))
}

#[test]
fn official_siphash_vectors_hold() {
    let message: [u8; 16] = bytes(0);
    for (len, expected) in OFFICIAL.iter().enumerate() {
        let expected: TokenId = expected.parse().unwrap();
        let ours = SipHasher24::new_with_key(&bytes(0)).hash(&message[..len]).as_bytes();
        assert_eq!(TokenId(ours), expected, "{len}");
        assert_eq!(TokenId(reference(&bytes(0), &message[..len])), expected, "{len}");
    }
}

#[test]
fn the_mac_covers_the_96_bytes_in_order() {
    let (head, tail): ([u8; 40], [u8; 24]) = (bytes(0), bytes(40));
    let (token, nonce) = (TokenId(bytes(64)), Nonce(bytes(80)));
    let key = MacKey::from_bytes(bytes(200));
    let expected = reference(&bytes(200), &bytes::<96>(0));
    assert_eq!(mac(&key, &head, &tail, &token, &nonce), expected);
    assert_eq!(
        mac(&key, &head, &tail, &TokenId::ZERO, &Nonce::ZERO),
        reference(&bytes(200), &[bytes::<64>(0).as_slice(), &[0; 32]].concat())
    );
}

#[test]
fn every_bit_of_key_and_input_changes_the_mac() {
    let compute = |message: &[u8; 112]| {
        mac(
            &MacKey::from_bytes(message[96..].try_into().unwrap()),
            message[..40].try_into().unwrap(),
            message[40..64].try_into().unwrap(),
            &TokenId(message[64..80].try_into().unwrap()),
            &Nonce(message[80..96].try_into().unwrap()),
        )
    };
    let mut message: [u8; 112] = bytes(7);
    let original = compute(&message);
    for bit in 0..8 * message.len() {
        message[bit / 8] ^= 1 << (bit % 8);
        assert!(!mac_matches(&original, &compute(&message)), "bit {bit}");
        message[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(mac_matches(&original, &compute(&message)));
}

#[test]
fn debug_does_not_show_the_key() {
    assert_eq!(format!("{:?}", MacKey::from_bytes([0xab; 16])), "MacKey(redacted)");
}
