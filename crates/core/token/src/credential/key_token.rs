//! Key tokens: a CA's statement about a node's key in about 150 bytes.
//!
//! A CWT in COSE_Sign1 (tag 18) with external data `tap/1 key token`. Protected header
//! `{1: -7, 4: first 8 bytes of the CA's key id}`. Claims, in this order: 2 node id (text), 4 expiry, 5 not before,
//! 8 confirmation (RFC 8747) `{1: {1: 2, -1: 1, -2: x, -3: parity of y}}`, and, if restricted, -65537 the list
//! of tag patterns (text). Deterministic encoding, low s.

use ciborium::Value;
use trireme_identity::NodeId;
use trireme_identity::time::WallTime;

use super::{CredentialError, Statement};
use crate::claims::{Algorithm, FormError};
use crate::cose::{self, Message};
use crate::cwt::unsigned;
use crate::{Constraints, KeyError, KeyId, SigningKey, VerifyingKey};

const EXTERNAL: &[u8] = b"tap/1 key token";
const CA_ID_LEN: usize = 8;

const NODE: i64 = 2;
const NOT_AFTER: i64 = 4;
const NOT_BEFORE: i64 = 5;
const CONFIRMATION: i64 = 8;
const CONSTRAINTS: i64 = -65537;

/// A key token taken apart, not verified.
#[derive(Debug)]
pub(crate) struct KeyToken {
    pub(crate) statement: Statement,
    pub(crate) ca: [u8; CA_ID_LEN],
    pub(crate) signed: Vec<u8>,
    pub(crate) signature: [u8; 64],
}

impl KeyToken {
    /// Whether this CA key is the one the token names.
    pub(crate) fn names(&self, ca: &KeyId) -> bool {
        ca.0.starts_with(&self.ca)
    }
}

/// Signs a statement with the CA's key.
pub(crate) fn write(statement: &Statement, ca: &SigningKey) -> Result<Vec<u8>, KeyError> {
    let payload = payload(statement).ok_or(KeyError::Crypto)?;
    let protected = protected(&ca_id(&ca.public().id()));
    let signed = cose::signed_bytes(Algorithm::Es256, &protected, EXTERNAL, &payload);
    let signature = ca.sign(&signed)?.to_vec();
    cose::assemble(Algorithm::Es256, Message { protected, payload, signature }).ok_or(KeyError::Crypto)
}

/// Reads a key token in its one form; its signature is not checked.
pub(crate) fn read(bytes: &[u8]) -> Result<KeyToken, CredentialError> {
    let Message { protected: header, payload: claims, signature } = cose::parse(bytes, Algorithm::Es256)?;
    let ca = header.last_chunk::<CA_ID_LEN>().copied().ok_or(CredentialError::Malformed)?;
    if protected(&ca) != header {
        return Err(CredentialError::NotCanonical);
    }
    let statement = read_claims(cose::value(&claims)?)?;
    if payload(&statement).as_ref() != Some(&claims) {
        return Err(CredentialError::NotCanonical);
    }
    Ok(KeyToken {
        signed: cose::signed_bytes(Algorithm::Es256, &header, EXTERNAL, &claims),
        signature: signature.try_into().map_err(|_| CredentialError::Malformed)?,
        statement,
        ca,
    })
}

fn ca_id(id: &KeyId) -> [u8; CA_ID_LEN] {
    let mut out = [0; CA_ID_LEN];
    for (to, from) in out.iter_mut().zip(id.0) {
        *to = from;
    }
    out
}

/// `{1: -7, 4: ca}`.
fn protected(ca: &[u8; CA_ID_LEN]) -> Vec<u8> {
    let mut header = vec![0xa2, 0x01, 0x26, 0x04, 0x48];
    header.extend_from_slice(ca);
    header
}

fn payload(statement: &Statement) -> Option<Vec<u8>> {
    let Statement { node, key, constraints, not_before, not_after } = statement;
    let point = key.compressed();
    let (parity, x) = point.split_first()?;
    let cose_key = Value::Map(vec![
        (Value::from(1), Value::from(2)),
        (Value::from(-1), Value::from(1)),
        (Value::from(-2), Value::Bytes(x.to_vec())),
        (Value::from(-3), Value::from(*parity == 3)),
    ]);
    let mut entries = vec![
        (Value::from(NODE), Value::from(node.as_str())),
        (Value::from(NOT_AFTER), Value::from(not_after.0)),
        (Value::from(NOT_BEFORE), Value::from(not_before.0)),
        (Value::from(CONFIRMATION), Value::Map(vec![(Value::from(1), cose_key)])),
    ];
    if let Some(texts) = constraints.to_texts() {
        let texts = texts.into_iter().map(Value::from).collect();
        entries.push((Value::from(CONSTRAINTS), Value::Array(texts)));
    }
    cose::to_bytes(&Value::Map(entries))
}

fn read_claims(value: Value) -> Result<Statement, CredentialError> {
    let Value::Map(mut entries) = value else {
        return Err(CredentialError::Malformed);
    };
    let constraints = if entries.len() == 5 { entries.pop() } else { None };
    let Ok([(k2, Value::Text(node)), (k4, not_after), (k5, not_before), (k8, Value::Map(confirmation))]) =
        <[(Value, Value); 4]>::try_from(entries)
    else {
        return Err(CredentialError::Malformed);
    };
    if [k2, k4, k5, k8] != [NODE, NOT_AFTER, NOT_BEFORE, CONFIRMATION].map(Value::from) {
        return Err(CredentialError::NotCanonical);
    }
    Ok(Statement {
        node: node.parse::<NodeId>().map_err(|_| CredentialError::Malformed)?,
        key: read_key(confirmation)?,
        constraints: constraints.map_or(Ok(Constraints::Unrestricted), read_constraints)?,
        not_before: WallTime(unsigned(&not_before)?),
        not_after: WallTime(unsigned(&not_after)?),
    })
}

fn read_key(confirmation: Vec<(Value, Value)>) -> Result<VerifyingKey, CredentialError> {
    let Ok([(_, Value::Map(cose_key))]) = <[(Value, Value); 1]>::try_from(confirmation) else {
        return Err(CredentialError::Malformed);
    };
    let Ok([_, _, (_, Value::Bytes(x)), (_, Value::Bool(odd))]) = <[(Value, Value); 4]>::try_from(cose_key)
    else {
        return Err(CredentialError::Malformed);
    };
    let mut point = vec![if odd { 3 } else { 2 }];
    point.extend(x);
    let point = <[u8; 33]>::try_from(point).map_err(|_| CredentialError::NotP256)?;
    VerifyingKey::from_compressed(&point).map_err(|_| CredentialError::NotP256)
}

fn read_constraints((key, value): (Value, Value)) -> Result<Constraints, CredentialError> {
    let Value::Array(patterns) = value else {
        return Err(CredentialError::BadConstraints);
    };
    if key != Value::from(CONSTRAINTS) {
        return Err(CredentialError::NotCanonical);
    }
    let texts: Option<Vec<&str>> = patterns.iter().map(Value::as_text).collect();
    Constraints::parse(texts.ok_or(CredentialError::BadConstraints)?)
        .map_err(|_| CredentialError::BadConstraints)
}

impl From<FormError> for CredentialError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::NotCanonical => Self::NotCanonical,
            FormError::Malformed | FormError::WrongAlgorithm | FormError::Version => Self::Malformed,
        }
    }
}
