//! `trireme keys`.

use trireme_identity::time::WallTime;
use trireme_identity::{PuId, TagSet};
use trireme_token::credential::NodeCredential;
use trireme_token::{
    AgreementPublic, Constraints, Encoding, PublicKeyAdder, Signer, SigningKey, TokenRequest, TrustRoot,
    Verifier, VerifyError, VerifyingKey,
};

use crate::stage::Stage;

fn made() -> Stage {
    let stage = Stage::new();
    let (code, _, error) = stage.run(&["keys", "ca", "--name", "demo", "--out", "ca"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let node = ["keys", "node", "--id", "node-a", "--ca", "ca", "--out", "a", "--allow", "role=web*"];
    let (code, _, error) = stage.run(&node);
    assert_eq!((code, error.as_str()), (0, ""));
    stage
}

#[test]
fn what_a_node_signs_with_its_files_is_accepted_by_whoever_trusts_the_ca() {
    let stage = made();
    let root = || TrustRoot::from_pem("demo", &stage.read("ca.cert.pem"), Constraints::Unrestricted).unwrap();
    for file in ["a.cert.pem", "a.token.pem"] {
        let credential = NodeCredential::from_pem(&stage.read(file)).unwrap();
        let verifier = Verifier::pki(vec![root()]);
        let token = issue(&stage, &credential, "role=web-1");
        let verified = verifier.verify(&token.bytes, &token.credential, now()).unwrap();
        assert_eq!(verified.claims.issuer.as_str(), "node-a");
        let token = issue(&stage, &credential, "role=db");
        let refused = verifier.verify(&token.bytes, &token.credential, now());
        assert!(matches!(refused, Err(VerifyError::ConstraintViolated { .. })), "{refused:?}");
    }
}

#[test]
fn a_pre_populated_public_key_verifies_too() {
    let stage = made();
    let token = issue(&stage, &NodeCredential::Prepopulated, "role=db");
    let verifier = Verifier::pki(Vec::new());
    let key = VerifyingKey::from_pem(&stage.read("a.pub.pem")).unwrap();
    verifier.add_public_key("node-a".parse().unwrap(), key, Constraints::Unrestricted).unwrap();
    assert_eq!(verifier.verify(&token.bytes, &[], now()).unwrap().root, None);
}

#[test]
fn files_are_private_and_never_overwritten() {
    let stage = made();
    let before = stage.read("a.key.pem");
    for name in ["ca.key.pem", "ca.cert.pem", "a.key.pem", "a.cert.pem", "a.token.pem", "a.pub.pem"] {
        assert_eq!(stage.mode(name), 0o600, "{name}");
    }
    std::fs::remove_file(stage.path().join("a.cert.pem")).unwrap();
    let (code, _, error) = stage.run(&["keys", "node", "--id", "node-a", "--ca", "ca", "--out", "a"]);
    assert_eq!(code, 2);
    let refusal = "trireme: a.key.pem exists: keys are never overwritten, remove it or choose another path\n";
    assert_eq!(error, refusal);
    assert_eq!(stage.read("a.key.pem"), before);
    assert!(!stage.path().join("a.cert.pem").exists(), "nothing of a refused set is made");
    let (code, _, error) = stage.run(&["keys", "ca", "--name", "demo", "--out", "nowhere/ca"]);
    assert_eq!(code, 2);
    assert!(error.contains("cannot write nowhere/ca.key.pem"), "{error}");
}

#[test]
fn private_parts_are_never_printed() {
    let stage = made();
    let (_, made_psk, _) = stage.run(&["keys", "psk", "--out", "psk"]);
    let files = ["ca.cert.pem", "ca.key.pem", "a.key.pem", "a.cert.pem", "a.token.pem", "a.pub.pem", "psk"];
    let (code, shown, error) = stage.run(&[&["keys", "show"], &files[..]].concat());
    assert_eq!(code, 0, "{error}");
    for part in [
        "certificate of an authority",
        "certificate of a node",
        "key token of a node",
        "private key",
        "public key",
        "pre-shared key",
        "role=web*",
        "node-a",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    for secret in ["ca.key.pem", "a.key.pem", "psk"] {
        for line in stage.read(secret).lines().filter(|line| !line.starts_with("-----")) {
            assert!(!shown.contains(line) && !made_psk.contains(line), "{secret}");
        }
    }
}

#[test]
fn files_that_are_no_keys_are_named() {
    let stage = Stage::new();
    stage.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (code, _, error) = stage.run(&["keys", "show", "broken.pem"]);
    assert_eq!(code, 2);
    assert!(error.starts_with("trireme: broken.pem is none of: private key"), "{error}");
    let (code, _, error) = stage.run(&["keys", "node", "--id", "a", "--ca", "none", "--out", "x"]);
    assert_eq!(code, 2);
    assert!(error.contains("cannot read none.key.pem: No such file"), "{error}");
}

#[test]
fn a_revocation_is_added_once_and_a_mistake_changes_nothing() {
    let stage = made();
    let (_, shown, _) = stage.run(&["keys", "show", "a.pub.pem"]);
    let key = shown.split_whitespace().find(|word| word.len() == 64).unwrap();
    for arguments in [["key", key], ["node", "node-b"], ["node", "node-b"]] {
        let all = [&["keys", "revoke"], &arguments[..], &["--deny-list", "deny"]].concat();
        let (code, _, error) = stage.run(&all);
        assert_eq!(code, 0, "{error}");
    }
    assert_eq!(stage.read("deny"), format!("key {key}\nnode node-b\n"));
    for (kind, id, problem) in [
        ("key", "7", "no key: expected 64 lower-case hexadecimal digits"),
        ("token", key, "no token: expected 32 lower-case hexadecimal digits"),
        ("node", "a b", "an entry is"),
        ("host", "a", "possible values: key, token, node"),
    ] {
        let (code, _, error) = stage.run(&["keys", "revoke", kind, id, "--deny-list", "deny"]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(stage.read("deny"), format!("key {key}\nnode node-b\n"));
    stage.write("bad", "nonsense\n");
    let (code, _, error) = stage.run(&["keys", "revoke", "node", "b", "--deny-list", "bad"]);
    assert_eq!(code, 2);
    assert!(error.starts_with("trireme: bad:1: an entry is"), "{error}");
}

fn issue(stage: &Stage, credential: &NodeCredential, tag: &str) -> trireme_token::Token {
    let key = SigningKey::from_pem(&stage.read("a.key.pem")).unwrap();
    let signer = Signer::pki("node-a".parse().unwrap(), key, credential).unwrap();
    let subject: PuId = "web".parse().unwrap();
    let request = TokenRequest {
        subject,
        tags: TagSet::parse([tag]).unwrap(),
        partial: false,
        agreement: AgreementPublic([9; 32]),
        issued_at: now(),
        lifetime_secs: 600,
    };
    signer.issue(&request, Encoding::Cwt).unwrap()
}

fn now() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    WallTime(since.as_secs())
}
