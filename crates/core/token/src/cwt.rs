//! CBOR Web Tokens in one form.
//!
//! Claims map, in this order: 1 issuer (text), 2 subject (text), 4 expiry (uint), 6 issued-at (uint),
//! -65537 (private use) an array `[version, signer key id (32 B), agreement key (32 B), partial (bool),
//! [* "key=value"]]`. Deterministic encoding of RFC 8949, section 4.2.1.

use ciborium::Value;
use trireme_identity::time::WallTime;
use trireme_identity::{Tag, TagSet};

use crate::claims::{Algorithm, FormError, MAX_TAGS, Parsed, VERSION};
use crate::{AgreementPublic, Claims, KeyId, cose};

const ISSUER: i64 = 1;
const SUBJECT: i64 = 2;
const EXPIRES_AT: i64 = 4;
const ISSUED_AT: i64 = 6;
/// First key of the range for private use (IANA "CBOR Web Token Claims").
const TAP: i64 = -65537;

const fn protected(algorithm: Algorithm) -> &'static [u8] {
    match algorithm {
        Algorithm::Es256 => &cose::ES256,
        Algorithm::Hs256 => &cose::HS256,
    }
}

/// Writes the payload and the bytes under the signature.
pub(crate) fn signed_bytes(claims: &Claims, algorithm: Algorithm) -> Option<(Vec<u8>, Vec<u8>)> {
    let payload = payload(claims)?;
    let signed = cose::signed_bytes(algorithm, protected(algorithm), b"", &payload);
    Some((payload, signed))
}

/// Writes the whole token.
pub(crate) fn assemble(algorithm: Algorithm, payload: Vec<u8>, signature: Vec<u8>) -> Option<Vec<u8>> {
    let protected = protected(algorithm).to_vec();
    cose::assemble(algorithm, cose::Message { protected, payload, signature })
}

/// Takes a token apart and refuses every form but the one that [`assemble`] writes.
pub(crate) fn parse(token: &[u8], algorithm: Algorithm) -> Result<Parsed, FormError> {
    let message = cose::parse(token, algorithm)?;
    if message.protected != protected(algorithm) {
        return Err(cose::header_error(&message.protected, algorithm));
    }
    let claims = read(cose::value(&message.payload)?)?;
    let (canonical, signed) = signed_bytes(&claims, algorithm).ok_or(FormError::Malformed)?;
    if canonical != message.payload {
        return Err(FormError::NotCanonical);
    }
    Ok(Parsed { claims, signed, signature: message.signature })
}

fn payload(claims: &Claims) -> Option<Vec<u8>> {
    let Claims { issuer, signer, subject, issued_at, expires_at, tags, partial, agreement } = claims;
    let tags = tags.iter().map(|tag| Value::from(tag.to_string())).collect();
    let private = vec![
        Value::from(VERSION),
        Value::Bytes(signer.0.to_vec()),
        Value::Bytes(agreement.0.to_vec()),
        Value::from(*partial),
        Value::Array(tags),
    ];
    cose::to_bytes(&Value::Map(vec![
        (Value::from(ISSUER), Value::from(issuer.as_str())),
        (Value::from(SUBJECT), Value::from(subject.as_str())),
        (Value::from(EXPIRES_AT), Value::from(expires_at.0)),
        (Value::from(ISSUED_AT), Value::from(issued_at.0)),
        (Value::from(TAP), Value::Array(private)),
    ]))
}

fn read(value: Value) -> Result<Claims, FormError> {
    let Value::Map(entries) = value else {
        return Err(FormError::Malformed);
    };
    let Ok(entries) = <[(Value, Value); 5]>::try_from(entries) else {
        return Err(FormError::Malformed);
    };
    let keys = entries.each_ref().map(|(key, _)| key.as_integer().and_then(|key| i64::try_from(key).ok()));
    if keys != [Some(ISSUER), Some(SUBJECT), Some(EXPIRES_AT), Some(ISSUED_AT), Some(TAP)] {
        return Err(FormError::NotCanonical);
    }
    let [(_, Value::Text(issuer)), (_, Value::Text(subject)), (_, exp), (_, iat), (_, Value::Array(private))] =
        entries
    else {
        return Err(FormError::Malformed);
    };
    let private = <[Value; 5]>::try_from(private).map_err(|_| FormError::Malformed)?;
    let [version, Value::Bytes(signer), Value::Bytes(agreement), Value::Bool(partial), Value::Array(tags)] =
        private
    else {
        return Err(FormError::Malformed);
    };
    if unsigned(&version)? != u64::from(VERSION) {
        return Err(FormError::Version);
    }
    if tags.len() > MAX_TAGS {
        return Err(FormError::Malformed);
    }
    Ok(Claims {
        issuer: issuer.parse().map_err(|_| FormError::Malformed)?,
        signer: KeyId(signer.try_into().map_err(|_| FormError::Malformed)?),
        subject: subject.parse().map_err(|_| FormError::Malformed)?,
        issued_at: WallTime(unsigned(&iat)?),
        expires_at: WallTime(unsigned(&exp)?),
        tags: tags.into_iter().map(read_tag).collect::<Result<TagSet, _>>()?,
        partial,
        agreement: AgreementPublic(agreement.try_into().map_err(|_| FormError::Malformed)?),
    })
}

fn read_tag(value: Value) -> Result<Tag, FormError> {
    let Value::Text(text) = value else {
        return Err(FormError::Malformed);
    };
    text.parse().map_err(|_| FormError::Malformed)
}

/// Reads an unsigned integer.
pub(crate) fn unsigned(value: &Value) -> Result<u64, FormError> {
    let integer = value.as_integer().ok_or(FormError::Malformed)?;
    u64::try_from(integer).map_err(|_| FormError::Malformed)
}
