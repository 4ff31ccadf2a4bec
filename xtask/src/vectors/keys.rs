//! Agreement keys and the pair keys derived from them.

use anyhow::bail;
use serde::Serialize;
use trireme_token::{AgreementPublic, PairMode, Psk, Role, pair_keys};

use super::{INITIATOR, PSK, RESPONDER, agreement, hex, psk};

/// The file's content.
#[derive(Serialize)]
pub(super) struct Keys {
    about: &'static str,
    psk_key_ids: Vec<PskId>,
    pair_keys: Vec<Pair>,
    refused_public_keys: Vec<Refused>,
}

#[derive(Serialize)]
struct PskId {
    psk: &'static str,
    key_id: String,
}

#[derive(Serialize)]
struct Pair {
    name: &'static str,
    mode: &'static str,
    psk: Option<&'static str>,
    initiator_private: String,
    initiator_public: String,
    responder_private: String,
    responder_public: String,
    initiator_key: String,
    responder_key: String,
}

#[derive(Serialize)]
struct Refused {
    public: &'static str,
    error: &'static str,
}

const OTHER_PSK: &str = "another secret of enough bytes";

/// Points of low order, and zero: the shared secret would be all zero (RFC 7748, section 6.1).
const LOW_ORDER: [&str; 4] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// Computes the file's content.
pub(super) fn generate() -> anyhow::Result<Keys> {
    let ids = [PSK, OTHER_PSK]
        .map(|text| Psk::from_text(text).map(|psk| PskId { psk: text, key_id: psk.key_id().to_string() }));
    Ok(Keys {
        about: "X25519; ikm = shared secret (pki) or psk then shared secret (psk); HKDF-SHA-256 with salt = \
                initiator's public key then responder's, info = tap/1 then mode then sender's role, 16 bytes; \
                the key id of a psk is SHA-256 of HKDF(psk, salt = tap/1 psk, info = tap/1 key id), 32 bytes",
        psk_key_ids: ids.into_iter().collect::<Result<_, _>>()?,
        pair_keys: vec![
            pair("pki", None, INITIATOR, RESPONDER)?,
            pair("pki, roles exchanged", None, RESPONDER, INITIATOR)?,
            pair("pki, both on one node", None, INITIATOR, INITIATOR)?,
            pair("psk", Some(PSK), INITIATOR, RESPONDER)?,
            pair("psk, another one", Some(OTHER_PSK), INITIATOR, RESPONDER)?,
        ],
        refused_public_keys: LOW_ORDER.into_iter().map(refused).collect::<Result<_, _>>()?,
    })
}

fn pair(name: &'static str, psk: Option<&'static str>, initiator: u8, responder: u8) -> anyhow::Result<Pair> {
    let (own, peer) = (agreement(initiator)?, agreement(responder)?);
    let secret = psk.map(Psk::from_text).transpose()?;
    let mode = secret.as_ref().map_or(PairMode::Pki, PairMode::Psk);
    let keys = pair_keys(&own, &peer.public(), Role::Initiator, mode)?;
    let mirrored = pair_keys(&peer, &own.public(), Role::Responder, mode)?;
    if keys.initiator.secret_bytes() != mirrored.initiator.secret_bytes()
        || keys.responder.secret_bytes() != mirrored.responder.secret_bytes()
    {
        bail!("{name}: the two ends disagree");
    }
    Ok(Pair {
        name,
        mode: if psk.is_some() { "psk" } else { "pki" },
        psk,
        initiator_private: hex(&[initiator; 32]),
        initiator_public: own.public().to_string(),
        responder_private: hex(&[responder; 32]),
        responder_public: peer.public().to_string(),
        initiator_key: hex(keys.initiator.secret_bytes()),
        responder_key: hex(keys.responder.secret_bytes()),
    })
}

fn refused(public: &'static str) -> anyhow::Result<Refused> {
    let peer: AgreementPublic = public.parse()?;
    let secret = psk()?;
    for mode in [PairMode::Pki, PairMode::Psk(&secret)] {
        if pair_keys(&agreement(INITIATOR)?, &peer, Role::Initiator, mode).is_ok() {
            bail!("{public} is accepted");
        }
    }
    Ok(Refused { public, error: "zero-shared-secret" })
}
