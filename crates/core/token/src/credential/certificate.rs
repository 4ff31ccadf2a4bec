//! X.509 certificates of nodes.
//!
//! Profile: P-256 key as named curve and uncompressed point; exactly one URI name `trireme://node/<id>`;
//! signed by a trust root directly. No authority key identifier in what we make: 33 bytes of the size budget for
//! a look-up that the root's name does (`openssl verify` is content, its `-x509_strict` is not).
//! Constraints stand in a private extension, `SEQUENCE OF UTF8String`, absent if unrestricted. Not critical, so
//! that ordinary verifiers accept the certificate.

use trireme_identity::NodeId;
use trireme_identity::time::WallTime;
use x509_parser::asn1_rs::{FromDer, Oid, ToDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::{CredentialError, Statement};
use crate::{Constraints, VerifyingKey};

/// Before the node's id in the certificate's URI name.
pub(crate) const NODE_URI: &str = "trireme://node/";

/// 2.25.n (X.667), n = the low 64 bits of a random UUID: what every DER library can write.
pub(crate) const CONSTRAINTS_OID: [u64; 3] = [2, 25, 0xb1d5_6a0c_93e8_4f27];

/// Reads what a certificate says; its signature is not checked.
pub(crate) fn read(der: &[u8]) -> Result<Statement, CredentialError> {
    let certificate = whole(der)?;
    let (not_before, not_after) = validity(&certificate);
    Ok(Statement {
        node: node_id(&certificate)?,
        key: public_key(&certificate)?,
        constraints: constraints(&certificate)?,
        not_before,
        not_after,
    })
}

/// Parses a certificate that fills `der`.
pub(crate) fn whole(der: &[u8]) -> Result<X509Certificate<'_>, CredentialError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CredentialError::Malformed),
    }
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (WallTime, WallTime) {
    let wall = |secs: i64| WallTime(u64::try_from(secs).unwrap_or(0));
    let validity = certificate.validity();
    (wall(validity.not_before.timestamp()), wall(validity.not_after.timestamp()))
}

pub(crate) fn public_key(certificate: &X509Certificate<'_>) -> Result<VerifyingKey, CredentialError> {
    VerifyingKey::from_spki_der(certificate.public_key().raw).map_err(|_| CredentialError::NotP256)
}

/// Reads the private extension; absent means unrestricted.
pub(crate) fn constraints(certificate: &X509Certificate<'_>) -> Result<Constraints, CredentialError> {
    let oid = Oid::from(&CONSTRAINTS_OID).map_err(|_| CredentialError::BadConstraints)?;
    let extension = certificate.get_extension_unique(&oid).map_err(|_| CredentialError::BadConstraints)?;
    let Some(extension) = extension else {
        return Ok(Constraints::Unrestricted);
    };
    match <Vec<String> as FromDer<'_>>::from_der(extension.value) {
        Ok(([], texts)) => {
            Constraints::parse(texts.iter().map(String::as_str)).map_err(|_| CredentialError::BadConstraints)
        }
        Ok(_) | Err(_) => Err(CredentialError::BadConstraints),
    }
}

/// Writes the extension's content; `None` if there is nothing to restrict.
pub(crate) fn constraints_der(constraints: &Constraints) -> Result<Option<Vec<u8>>, CredentialError> {
    constraints
        .to_texts()
        .map(|texts| texts.to_der_vec())
        .transpose()
        .map_err(|_| CredentialError::BadConstraints)
}

fn node_id(certificate: &X509Certificate<'_>) -> Result<NodeId, CredentialError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CredentialError::NoNodeId)?
        .ok_or(CredentialError::NoNodeId)?;
    let mut ids = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        uri.strip_prefix(NODE_URI)
    });
    let (Some(id), None) = (ids.next(), ids.next()) else {
        return Err(CredentialError::NoNodeId);
    };
    id.parse().map_err(|_| CredentialError::NoNodeId)
}
