//! JSON Web Tokens in one form.
//!
//! `base64url(header) . base64url(payload) . base64url(signature)`, no padding. The header is one of two
//! constants; the payload is JSON without white space, members in the order of [`Payload`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, PuId, Tag};

use crate::claims::{Algorithm, FormError, MAX_TAGS, Parsed, VERSION};
use crate::{AgreementPublic, Claims, KeyId};

const fn header(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Es256 => r#"{"alg":"ES256","typ":"tap+jwt"}"#,
        Algorithm::Hs256 => r#"{"alg":"HS256","typ":"tap+jwt"}"#,
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    iss: NodeId,
    sub: PuId,
    iat: u64,
    exp: u64,
    tap: Private,
}

/// Our own claims, under one name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Private {
    /// Version.
    v: u8,
    /// The signer's key id, base64url.
    key: Bytes32,
    /// The agreement key, base64url.
    agr: Bytes32,
    /// Present and true if some tags were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    tags: Vec<Tag>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Bytes32([u8; 32]);

impl TryFrom<String> for Bytes32 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "not base64url")?;
        bytes.try_into().map(Self).map_err(|_| "not 32 bytes")
    }
}

impl From<Bytes32> for String {
    fn from(bytes: Bytes32) -> Self {
        URL_SAFE_NO_PAD.encode(bytes.0)
    }
}

/// Writes `header.payload`.
pub(crate) fn signed_bytes(claims: &Claims, algorithm: Algorithm) -> Option<Vec<u8>> {
    let Claims { issuer, signer, subject, issued_at, expires_at, tags, partial, agreement } = claims;
    let payload = Payload {
        iss: issuer.clone(),
        sub: subject.clone(),
        iat: issued_at.0,
        exp: expires_at.0,
        tap: Private {
            v: VERSION,
            key: Bytes32(signer.0),
            agr: Bytes32(agreement.0),
            partial: *partial,
            tags: tags.clone().into(),
        },
    };
    let json = serde_json::to_vec(&payload).ok()?;
    Some(
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header(algorithm)), URL_SAFE_NO_PAD.encode(json))
            .into_bytes(),
    )
}

/// Joins the signed bytes and the signature.
pub(crate) fn assemble(signed: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut token = signed.to_vec();
    token.push(b'.');
    token.extend_from_slice(URL_SAFE_NO_PAD.encode(signature).as_bytes());
    token
}

/// Takes a token apart and refuses every form but the one that [`assemble`] writes.
pub(crate) fn parse(token: &[u8], algorithm: Algorithm) -> Result<Parsed, FormError> {
    let text = std::str::from_utf8(token).map_err(|_| FormError::Malformed)?;
    let mut parts = text.split('.');
    let (Some(head), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FormError::Malformed);
    };
    check_header(head, algorithm)?;
    let json = decode(payload)?;
    let Payload { iss, sub, iat, exp, tap } =
        serde_json::from_slice(&json).map_err(|_| FormError::Malformed)?;
    let Private { v, key, agr, partial, tags } = tap;
    if v != VERSION {
        return Err(FormError::Version);
    }
    if tags.len() > MAX_TAGS {
        return Err(FormError::Malformed);
    }
    let claims = Claims {
        issuer: iss,
        signer: KeyId(key.0),
        subject: sub,
        issued_at: WallTime(iat),
        expires_at: WallTime(exp),
        tags: tags.into(),
        partial,
        agreement: AgreementPublic(agr.0),
    };
    let signature = decode(signature)?;
    let signed = signed_bytes(&claims, algorithm).ok_or(FormError::Malformed)?;
    if assemble(&signed, &signature) != token {
        return Err(FormError::NotCanonical);
    }
    Ok(Parsed { claims, signed, signature })
}

fn decode(part: &str) -> Result<Vec<u8>, FormError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| FormError::NotCanonical)
}

fn check_header(head: &str, algorithm: Algorithm) -> Result<(), FormError> {
    #[derive(Deserialize)]
    struct Alg {
        alg: String,
    }
    let bytes = decode(head)?;
    if bytes == header(algorithm).as_bytes() {
        return Ok(());
    }
    let Ok(found) = serde_json::from_slice::<Alg>(&bytes) else {
        return Err(FormError::Malformed);
    };
    let expected = match algorithm {
        Algorithm::Es256 => "ES256",
        Algorithm::Hs256 => "HS256",
    };
    Err(if found.alg == expected { FormError::NotCanonical } else { FormError::WrongAlgorithm })
}
