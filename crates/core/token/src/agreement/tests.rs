use super::*;

const PSK: &[u8] = b"k3Xw9qLr7TzB2mVd";

fn key(byte: u8) -> AgreementKey {
    AgreementKey::from_bytes([byte; 32]).unwrap()
}

fn derive(own: u8, peer: u8, role: Role, mode: PairMode<'_>) -> [[u8; 16]; 2] {
    let keys = pair_keys(&key(own), &key(peer).public(), role, mode).unwrap();
    [*keys.initiator.secret_bytes(), *keys.responder.secret_bytes()]
}

fn from_hex(text: &str) -> [u8; 32] {
    text.parse::<AgreementPublic>().unwrap().0
}

#[test]
fn x25519_agrees_with_rfc_7748_section_6_1() {
    let bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
    let bob = AgreementKey::from_bytes(from_hex(bob)).unwrap();
    let expected = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
    assert_eq!(bob.public().to_string(), expected);
    let alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    let shared = shared_secret(&bob, &alice.parse().unwrap()).unwrap();
    assert_eq!(*shared, from_hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
}

/// Expected values from an independent implementation (Python, own ladder and HKDF).
#[test]
fn pair_keys_agree_with_an_independent_implementation() {
    let psk = Psk::new(PSK).unwrap();
    let hex = |keys: [[u8; 16]; 2]| keys.map(|key| crate::Nonce(key).to_string());
    assert_eq!(
        hex(derive(1, 2, Role::Initiator, PairMode::Pki)),
        ["1e5d2957a8f916f43fd55930d8b0516a", "0fa3cd0d391f06b3eb004a0054d57b7e"]
    );
    assert_eq!(
        hex(derive(1, 2, Role::Initiator, PairMode::Psk(&psk))),
        ["c5154ede0e35709842a85f7bb45d5804", "5f4ed76fd913426a63bd2e1f7241ed19"]
    );
}

#[test]
fn both_ends_derive_the_same_keys() {
    let psk = Psk::new(PSK).unwrap();
    for mode in [PairMode::Pki, PairMode::Psk(&psk)] {
        assert_eq!(derive(1, 2, Role::Initiator, mode), derive(2, 1, Role::Responder, mode));
        assert_eq!(derive(3, 3, Role::Initiator, mode), derive(3, 3, Role::Responder, mode));
    }
}

#[test]
fn keys_differ_by_role_order_mode_secret_and_peer() {
    let (psk, other) = (Psk::new(PSK).unwrap(), Psk::new(b"another secret of enough bytes").unwrap());
    let sets = [
        derive(1, 2, Role::Initiator, PairMode::Pki),
        derive(1, 2, Role::Responder, PairMode::Pki),
        derive(1, 3, Role::Initiator, PairMode::Pki),
        derive(1, 1, Role::Initiator, PairMode::Pki),
        derive(1, 2, Role::Initiator, PairMode::Psk(&psk)),
        derive(1, 2, Role::Initiator, PairMode::Psk(&other)),
    ];
    let mut keys: Vec<[u8; 16]> = sets.into_iter().flatten().collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn public_keys_of_low_order_are_refused() {
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let psk = Psk::new(PSK).unwrap();
    for point in low_order {
        let peer: AgreementPublic = point.parse().unwrap();
        for mode in [PairMode::Pki, PairMode::Psk(&psk)] {
            let refusal = pair_keys(&key(1), &peer, Role::Initiator, mode).map(|_| ());
            assert_eq!(refusal, Err(PairError::ZeroSharedSecret), "{point}");
        }
    }
}

#[test]
fn debug_shows_no_private_byte() {
    let private = key(0xab);
    let public = private.public();
    assert_eq!(
        format!("{private:?}"),
        format!("AgreementKey {{ private: \"redacted\", public: AgreementPublic({public}) }}")
    );
    let keys = pair_keys(&key(1), &key(2).public(), Role::Initiator, PairMode::Pki).unwrap();
    assert_eq!(format!("{keys:?}"), "PairKeys { initiator: MacKey(redacted), responder: MacKey(redacted) }");
}

#[test]
fn secrets_are_wiped_on_request_and_on_drop() {
    const fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<AgreementKey>();
    wiped_on_drop::<MacKey>();
    wiped_on_drop::<Psk>();
    let mut private = key(0xab);
    private.zeroize();
    assert_eq!(*private.secret_bytes(), [0; 32]);
}

#[test]
fn the_roles_face_each_other() {
    assert_eq!((Role::Initiator.peer(), Role::Responder.peer()), (Role::Responder, Role::Initiator));
    let keys = pair_keys(&key(1), &key(2).public(), Role::Initiator, PairMode::Pki).unwrap();
    assert_eq!(keys.of(Role::Responder).secret_bytes(), keys.responder.secret_bytes());
    assert_eq!(keys.of(Role::Initiator).secret_bytes(), keys.initiator.secret_bytes());
}
