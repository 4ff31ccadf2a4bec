//! Identity tokens and credentials: accepted with what they say, refused with why.

use anyhow::{Context, bail};
use serde::Serialize;
use trireme_identity::TagSet;
use trireme_identity::time::WallTime;
use trireme_token::credential::NodeCredential;
use trireme_token::{
    Claims, Constraints, Encoding, PublicKeyAdder, Signer, SigningKey, Token, TokenId, TokenRequest,
    TrustRoot, Verified, Verifier,
};

use super::{INITIATOR, PSK, RESPONDER, agreement, fixed, hex, psk, seeded, unhex};

/// When the tokens are issued.
pub(super) const TIME: WallTime = WallTime(1_800_000_000);
/// The node of the PKI tokens.
pub(super) const NODE: &str = "node-a";
/// Our name for the CA.
const ROOT: &str = "vectors";

/// The file's content.
#[derive(Serialize)]
pub(super) struct Tokens {
    about: &'static str,
    issued_at: u64,
    psk: &'static str,
    root: Root,
    node: Node,
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Root {
    name: &'static str,
    key_id: String,
    certificate: &'static str,
}

#[derive(Serialize)]
struct Node {
    id: &'static str,
    key_id: String,
    public_key: String,
}

#[derive(Serialize)]
struct Accepted {
    name: &'static str,
    trust: Trust,
    encoding: Encoding,
    token: String,
    credential: String,
    signed_bytes: String,
    token_id: String,
    claims: ClaimsText,
    policy_tags: TagSet,
    valid_until: u64,
}

#[derive(Serialize)]
struct ClaimsText {
    issuer: String,
    signer: String,
    subject: String,
    issued_at: u64,
    expires_at: u64,
    tags: TagSet,
    partial: bool,
    agreement: String,
}

#[derive(Serialize)]
struct Refused {
    name: &'static str,
    trust: Trust,
    at: u64,
    token: String,
    credential: String,
    error: &'static str,
}

/// What the receiver trusts.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Trust {
    Psk,
    Root,
    PrepopulatedKey,
}

/// Computes the file's content.
pub(super) fn generate() -> anyhow::Result<Tokens> {
    let key = node_key()?.public().clone();
    Ok(Tokens {
        about: "identity tokens; token id = first 16 bytes of SHA-256 over signed_bytes (JWT: header.payload; CWT: \
                Sig_structure or MAC_structure); all byte strings in hexadecimal; ECDSA tokens are samples, a \
                signer's own will differ in the signature",
        issued_at: TIME.0,
        psk: PSK,
        root: Root { name: ROOT, key_id: root()?.key_id().to_string(), certificate: fixed::CA_CERTIFICATE },
        node: Node { id: NODE, key_id: key.id().to_string(), public_key: hex(key.spki_der()) },
        accepted: accepted()?,
        refused: refused()?,
    })
}

/// The node's key of the PKI vectors.
pub(super) fn node_key() -> anyhow::Result<SigningKey> {
    Ok(SigningKey::generate(&mut seeded(0xa1))?)
}

fn root() -> anyhow::Result<TrustRoot> {
    let der = unhex(fixed::CA_CERTIFICATE)?;
    Ok(TrustRoot::from_der(ROOT, &der, Constraints::Unrestricted)?)
}

fn verifier(trust: Trust) -> anyhow::Result<Verifier> {
    Ok(match trust {
        Trust::Psk => Verifier::psk(psk()?),
        Trust::Root => Verifier::pki(vec![root()?]),
        Trust::PrepopulatedKey => {
            let verifier = Verifier::pki(Vec::new());
            verifier.add_public_key(
                NODE.parse()?,
                node_key()?.public().clone(),
                Constraints::Unrestricted,
            )?;
            verifier
        }
    })
}

/// A verifier that holds the node's key.
pub(super) fn known_key() -> anyhow::Result<Verifier> {
    verifier(Trust::PrepopulatedKey)
}

/// What the initiator's token says.
pub(super) fn initiator_request() -> anyhow::Result<TokenRequest> {
    Ok(TokenRequest {
        subject: "frontend-0".parse()?,
        tags: TagSet::parse(["role=frontend", "app=shop", "app=checkout", "note=\"é\\/\u{20ac}"])?,
        partial: false,
        agreement: agreement(INITIATOR)?.public(),
        issued_at: TIME,
        lifetime_secs: 600,
    })
}

/// What the responder's token says.
pub(super) fn responder_request() -> anyhow::Result<TokenRequest> {
    Ok(TokenRequest {
        subject: "backend-0".parse()?,
        tags: TagSet::parse(["role=backend"])?,
        partial: true,
        agreement: agreement(RESPONDER)?.public(),
        issued_at: TIME,
        lifetime_secs: 600,
    })
}

/// Signs with the PSK, which gives the same bytes each time.
pub(super) fn psk_token(node: &str, request: &TokenRequest, encoding: Encoding) -> anyhow::Result<Token> {
    Ok(Signer::psk(node.parse()?, psk()?).issue(request, encoding)?)
}

fn accepted() -> anyhow::Result<Vec<Accepted>> {
    let mut vectors = Vec::new();
    let psk = [
        ("psk, JWT", initiator_request()?, Encoding::Jwt),
        ("psk, CWT", initiator_request()?, Encoding::Cwt),
        ("psk, JWT, partial", responder_request()?, Encoding::Jwt),
        ("psk, CWT, partial", responder_request()?, Encoding::Cwt),
        ("psk, CWT, no tags", TokenRequest { tags: TagSet::new(), ..responder_request()? }, Encoding::Cwt),
    ];
    for (name, request, encoding) in psk {
        let token = psk_token("node-psk", &request, encoding)?;
        vectors.push(accept(name, Trust::Psk, encoding, &token.bytes, &[])?);
    }
    let jwt = unhex(fixed::INITIATOR_JWT)?;
    let cwt = unhex(fixed::RESPONDER_CWT)?;
    let certificate = unhex(fixed::NODE_CERTIFICATE)?;
    let key_token = unhex(fixed::KEY_TOKEN)?;
    let pki = [
        ("certificate, JWT", Trust::Root, Encoding::Jwt, &jwt, certificate.as_slice()),
        ("key token, CWT", Trust::Root, Encoding::Cwt, &cwt, &key_token),
        ("pre-populated key, JWT", Trust::PrepopulatedKey, Encoding::Jwt, &jwt, &[]),
        ("pre-populated key, CWT", Trust::PrepopulatedKey, Encoding::Cwt, &cwt, &[]),
    ];
    for (name, trust, encoding, token, credential) in pki {
        vectors.push(accept(name, trust, encoding, token, credential)?);
    }
    Ok(vectors)
}

fn accept(
    name: &'static str,
    trust: Trust,
    encoding: Encoding,
    token: &[u8],
    credential: &[u8],
) -> anyhow::Result<Accepted> {
    let Verified { id, claims, policy_tags, valid_until, .. } =
        verifier(trust)?.verify(token, credential, TIME).with_context(|| name.to_owned())?;
    let signed = signed_bytes(encoding, token).with_context(|| name.to_owned())?;
    if TokenId::of(&signed) != id {
        bail!("{name}: the signed bytes are others than the id's");
    }
    Ok(Accepted {
        name,
        trust,
        encoding,
        token: hex(token),
        credential: hex(credential),
        signed_bytes: hex(&signed),
        token_id: id.to_string(),
        claims: text(claims),
        policy_tags,
        valid_until: valid_until.0,
    })
}

fn text(claims: Claims) -> ClaimsText {
    let Claims { issuer, signer, subject, issued_at, expires_at, tags, partial, agreement } = claims;
    ClaimsText {
        issuer: issuer.to_string(),
        signer: signer.to_string(),
        subject: subject.to_string(),
        issued_at: issued_at.0,
        expires_at: expires_at.0,
        tags,
        partial,
        agreement: agreement.to_string(),
    }
}

/// Cuts the signed bytes out of a token without the token crate's help.
///
/// A CWT is tag | 84 | protected | a0 | payload | signature; what is signed is
/// 84 | context | protected | 40 | payload.
fn signed_bytes(encoding: Encoding, token: &[u8]) -> anyhow::Result<Vec<u8>> {
    match encoding {
        Encoding::Jwt => {
            let end = token.iter().rposition(|byte| *byte == b'.').context("no dot")?;
            Ok(token.get(..end).context("cut")?.to_vec())
        }
        Encoding::Cwt => {
            let (context, signature) = match token.first() {
                Some(0xd2) => (b"\x6aSignature1".as_slice(), 2 + 64),
                Some(0xd1) => (b"\x64MAC0".as_slice(), 2 + 32),
                _ => bail!("neither COSE_Sign1 nor COSE_Mac0"),
            };
            let protected = token.get(2..6).context("protected header")?;
            let payload = token.get(7..token.len().saturating_sub(signature)).context("payload")?;
            Ok([&[0x84], context, protected, &[0x40], payload].concat())
        }
    }
}

fn refused() -> anyhow::Result<Vec<Refused>> {
    let psk_jwt = psk_token("node-psk", &initiator_request()?, Encoding::Jwt)?.bytes.to_vec();
    let psk_cwt = psk_token("node-psk", &initiator_request()?, Encoding::Cwt)?.bytes.to_vec();
    let jwt = unhex(fixed::INITIATOR_JWT)?;
    let cwt = unhex(fixed::RESPONDER_CWT)?;
    let certificate = unhex(fixed::NODE_CERTIFICATE)?;
    let key_token = unhex(fixed::KEY_TOKEN)?;
    let constrained = unhex(fixed::CONSTRAINED_KEY_TOKEN)?;
    let none: &[u8] = &[];
    let (known, root) = (Trust::PrepopulatedKey, Trust::Root);
    let flipped = |token: &[u8], at_end: usize| {
        let mut changed = token.to_vec();
        let at = changed.len() - at_end;
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= 1;
        }
        changed
    };
    let more = |token: &[u8], byte: u8| [token, &[byte]].concat();
    // The first key of the map, 1, written in two bytes; the payload (length at byte 8) grows by one.
    let mut long_integer = replace(&psk_cwt, &[0xa5, 0x01, 0x68], &[0xa5, 0x18, 0x01, 0x68])?;
    *long_integer.get_mut(8).context("payload length")? += 1;
    let unprotected = replace(&psk_cwt, &[0x05, 0xa0], &[0x05, 0xa1, 0x04, 0x41, 0x31])?;
    [
        ("psk token for a receiver that trusts keys, JWT", known, 0, psk_jwt.clone(), none),
        ("psk token for a receiver that trusts keys, CWT", known, 0, psk_cwt.clone(), none),
        ("ECDSA token for a receiver with the psk", Trust::Psk, 0, jwt.clone(), none),
        ("credential beside a psk token", Trust::Psk, 0, psk_cwt.clone(), key_token.as_slice()),
        ("changed MAC", Trust::Psk, 0, flipped(&psk_cwt, 1), none),
        ("changed signature", known, 0, flipped(&cwt, 1), none),
        ("high s, JWT", known, 0, unhex(fixed::HIGH_S_JWT)?, none),
        ("high s, CWT", known, 0, unhex(fixed::HIGH_S_CWT)?, none),
        ("padded base64", Trust::Psk, 0, more(&psk_jwt, b'='), none),
        ("trailing byte", Trust::Psk, 0, more(&psk_cwt, 0), none),
        ("integer not in its shortest form", Trust::Psk, 0, long_integer, none),
        ("unprotected header not empty", Trust::Psk, 0, unprotected, none),
        ("sixty seconds after its end", Trust::Psk, 660, psk_cwt.clone(), none),
        ("key unknown", root, 0, cwt.clone(), none),
        ("certificate of a node with changed signature", root, 0, jwt.clone(), &flipped(&certificate, 1)),
        ("key token with changed signature", root, 0, cwt.clone(), &flipped(&key_token, 1)),
        ("tag outside the constraints", root, 0, jwt, &constrained),
        ("credential of no root", known, 0, cwt, &key_token),
    ]
    .into_iter()
    .map(|(name, trust, later, token, credential)| {
        refuse(name, trust, TIME.plus_secs(later), &token, credential)
    })
    .collect()
}

fn refuse(
    name: &'static str,
    trust: Trust,
    at: WallTime,
    token: &[u8],
    credential: &[u8],
) -> anyhow::Result<Refused> {
    match verifier(trust)?.verify(token, credential, at) {
        Ok(_) => bail!("{name}: is accepted"),
        Err(error) => Ok(Refused {
            name,
            trust,
            at: at.0,
            token: hex(token),
            credential: hex(credential),
            error: error.name(),
        }),
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> anyhow::Result<Vec<u8>> {
    let at = bytes.windows(from.len()).position(|window| window == from).context("nothing to replace")?;
    let (head, tail) = bytes.split_at(at);
    Ok([head, to, tail.get(from.len()..).unwrap_or_default()].concat())
}

/// The node's credential as it travels beside the responder's token.
pub(super) fn key_token() -> anyhow::Result<NodeCredential> {
    Ok(NodeCredential::KeyToken(unhex(fixed::KEY_TOKEN)?.into()))
}
