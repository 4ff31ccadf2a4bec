//! COSE messages in one form: tagged, a fixed protected header, an empty unprotected map.

use ciborium::Value;
use coset::{
    CoseMac0, CoseSign1, Header, MacContext, ProtectedHeader, SignatureContext, TaggedCborSerializable,
    mac_structure_data, sig_structure_data,
};

use crate::claims::{Algorithm, FormError};

/// Nesting deeper than ours is refused before it costs anything.
const MAX_DEPTH: usize = 8;

/// Protected header `{1: -7}` (ES256, RFC 9053).
pub(crate) const ES256: [u8; 3] = [0xa1, 0x01, 0x26];
/// Protected header `{1: 5}` (HMAC 256/256, RFC 9053).
pub(crate) const HS256: [u8; 3] = [0xa1, 0x01, 0x05];

const SIGN1_TAG: u64 = 18;
const MAC0_TAG: u64 = 17;

/// A COSE message taken apart.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// Writes the bytes under the signature: `Sig_structure` or `MAC_structure` (RFC 9052, sections 4.4 and 6.3).
pub(crate) fn signed_bytes(algorithm: Algorithm, protected: &[u8], aad: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = raw_header(protected);
    match algorithm {
        Algorithm::Es256 => sig_structure_data(SignatureContext::CoseSign1, header, None, aad, payload),
        Algorithm::Hs256 => mac_structure_data(MacContext::CoseMac0, header, aad, payload),
    }
}

/// Writes a whole message.
pub(crate) fn assemble(algorithm: Algorithm, message: Message) -> Option<Vec<u8>> {
    let Message { protected, payload, signature } = message;
    let protected = raw_header(&protected);
    let (unprotected, payload) = (Header::default(), Some(payload));
    match algorithm {
        Algorithm::Es256 => CoseSign1 { protected, unprotected, payload, signature }.to_tagged_vec(),
        Algorithm::Hs256 => CoseMac0 { protected, unprotected, payload, tag: signature }.to_tagged_vec(),
    }
    .ok()
}

/// Takes a message apart and refuses every form but the one that [`assemble`] writes.
pub(crate) fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Message, FormError> {
    let Value::Tag(tag, body) = value(bytes)? else {
        return Err(FormError::Malformed);
    };
    match (tag, algorithm) {
        (SIGN1_TAG, Algorithm::Es256) | (MAC0_TAG, Algorithm::Hs256) => {}
        (SIGN1_TAG | MAC0_TAG, _) => return Err(FormError::WrongAlgorithm),
        _ => return Err(FormError::Malformed),
    }
    let Value::Array(parts) = *body else {
        return Err(FormError::Malformed);
    };
    let Ok(
        [Value::Bytes(protected), Value::Map(unprotected), Value::Bytes(payload), Value::Bytes(signature)],
    ) = <[Value; 4]>::try_from(parts)
    else {
        return Err(FormError::Malformed);
    };
    if !unprotected.is_empty() {
        return Err(FormError::NotCanonical);
    }
    let message = Message { protected, payload, signature };
    let copy = Message {
        protected: message.protected.clone(),
        payload: message.payload.clone(),
        signature: message.signature.clone(),
    };
    if assemble(algorithm, copy).as_deref() != Some(bytes) {
        return Err(FormError::NotCanonical);
    }
    Ok(message)
}

/// Tells a wrong algorithm from another deviation in a protected header.
pub(crate) fn header_error(protected: &[u8], algorithm: Algorithm) -> FormError {
    let expected = match algorithm {
        Algorithm::Es256 => -7,
        Algorithm::Hs256 => 5,
    };
    let Ok(Value::Map(entries)) = value(protected) else {
        return FormError::Malformed;
    };
    match entries.iter().find(|(key, _)| *key == Value::from(1)) {
        Some((_, found)) if *found == Value::from(expected) => FormError::NotCanonical,
        Some(_) => FormError::WrongAlgorithm,
        None => FormError::Malformed,
    }
}

/// Parses one CBOR item that fills `bytes`.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, FormError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| FormError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(FormError::NotCanonical) }
}

/// Writes an item in deterministic CBOR, its maps being in order already.
pub(crate) fn to_bytes(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).ok()?;
    Some(out)
}

fn raw_header(protected: &[u8]) -> ProtectedHeader {
    ProtectedHeader { original_data: Some(protected.to_vec()), header: Header::default() }
}
