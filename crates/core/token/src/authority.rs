//! Making CAs and the credentials of nodes.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use trireme_identity::NodeId;
use trireme_identity::time::WallTime;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use crate::credential::{CredentialError, NodeCredential, Statement, certificate, key_token, pem_text};
use crate::random::{RandomSource, secret};
use crate::{Constraints, KeyError, SigningKey, VerifyingKey};

/// How far new certificates are dated back, in seconds, for clocks that are behind.
pub const BACKDATE_SECS: u64 = 300;

/// Why a CA or a credential cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key is unusable.
    #[error("the CA's key is unusable")]
    Key(#[from] KeyError),
    /// The certificate is unusable.
    #[error("the CA's certificate is unusable")]
    Certificate(#[from] CredentialError),
    /// Key and certificate do not belong together.
    #[error("the CA's key is not the one in its certificate")]
    OtherKey,
    /// The certificate is not a CA's.
    #[error("the certificate is not a CA's")]
    NotAuthority,
    /// The period cannot be written, or ends before it begins.
    #[error("the validity period cannot be written in a certificate")]
    Period,
    /// The encoder refused.
    #[error("the certificate cannot be made")]
    Encode(#[source] rcgen::Error),
}

/// From when a credential holds, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The time of making.
    pub now: WallTime,
    /// How long from then, in seconds.
    pub lifetime_secs: u64,
}

/// What a node's credential shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRequest {
    /// The node.
    pub node: NodeId,
    /// Its public key.
    pub key: VerifyingKey,
    /// The tags it may claim.
    pub constraints: Constraints,
    /// When.
    pub period: Period,
}

/// A CA: a P-256 key and its self-signed certificate.
#[derive(Clone, Debug)]
pub struct Authority {
    key: SigningKey,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Makes a new CA; its `constraints` hold for every node it certifies.
    ///
    /// # Errors
    /// [`AuthorityError`] if the period cannot be written or the crypto library refuses.
    pub fn create(
        name: &str,
        constraints: &Constraints,
        period: Period,
        rng: &mut dyn RandomSource,
    ) -> Result<Self, AuthorityError> {
        let key = SigningKey::generate(rng)?;
        let mut params = params(name, constraints, period, rng)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&CertificateKey(&key)).map_err(AuthorityError::Encode)?;
        Ok(Self { certificate: certificate.der().clone(), key })
    }

    /// Reads a CA from its key and certificate.
    ///
    /// # Errors
    /// [`AuthorityError`] if one is unusable or they do not belong together.
    pub fn from_pem(key: &str, certificate_text: &str) -> Result<Self, AuthorityError> {
        let key = SigningKey::from_pem(key)?;
        let der = CertificateDer::from_pem_slice(certificate_text.as_bytes())
            .map_err(|_| CredentialError::NotPem)?;
        let parsed = certificate::whole(&der)?;
        if !parsed.is_ca() {
            return Err(AuthorityError::NotAuthority);
        }
        if certificate::public_key(&parsed)? != *key.public() {
            return Err(AuthorityError::OtherKey);
        }
        Ok(Self { key, certificate: der })
    }

    /// The private key as PKCS#8 PEM, for a file of mode 0600.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem_text(&pem::Pem::new("CERTIFICATE", self.certificate.to_vec()))
    }

    /// The certificate.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Certifies a node's key with an X.509 certificate.
    ///
    /// # Errors
    /// [`AuthorityError`] if the period cannot be written or the crypto library refuses.
    pub fn certify(
        &self,
        request: &NodeRequest,
        rng: &mut dyn RandomSource,
    ) -> Result<NodeCredential, AuthorityError> {
        let NodeRequest { node, key, constraints, period } = request;
        let mut params = params(node.as_str(), constraints, *period, rng)?;
        let uri = format!("{}{node}", certificate::NODE_URI);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(AuthorityError::Encode)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::from_ca_cert_der(&self.certificate, CertificateKey(&self.key))
            .map_err(AuthorityError::Encode)?;
        let certificate = params.signed_by(&SubjectKey(key), &issuer).map_err(AuthorityError::Encode)?;
        Ok(NodeCredential::Certificate(certificate.der().as_ref().into()))
    }

    /// Certifies a node's key with a key token.
    ///
    /// # Errors
    /// [`AuthorityError`] if the period cannot be written or the crypto library refuses.
    pub fn key_token(&self, request: &NodeRequest) -> Result<NodeCredential, AuthorityError> {
        let NodeRequest { node, key, constraints, period } = request;
        let (not_before, not_after) = bounds(*period)?;
        let statement = Statement {
            node: node.clone(),
            key: key.clone(),
            constraints: constraints.clone(),
            not_before,
            not_after,
        };
        Ok(NodeCredential::KeyToken(key_token::write(&statement, &self.key)?.into()))
    }
}

fn bounds(period: Period) -> Result<(WallTime, WallTime), AuthorityError> {
    let Period { now, lifetime_secs } = period;
    let end = now.0.checked_add(lifetime_secs).ok_or(AuthorityError::Period)?;
    if lifetime_secs == 0 {
        return Err(AuthorityError::Period);
    }
    Ok((now.minus_secs(BACKDATE_SECS), WallTime(end)))
}

fn params(
    common_name: &str,
    constraints: &Constraints,
    period: Period,
    rng: &mut dyn RandomSource,
) -> Result<CertificateParams, AuthorityError> {
    let (not_before, not_after) = bounds(period)?;
    let date = |time: WallTime| {
        let secs = i64::try_from(time.0).map_err(|_| AuthorityError::Period)?;
        ASN1Time::from_timestamp(secs).map(|time| time.to_datetime()).map_err(|_| AuthorityError::Period)
    };
    let mut params = CertificateParams::default();
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial(rng));
    if let Some(content) = certificate::constraints_der(constraints)? {
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&certificate::CONSTRAINTS_OID, content)];
    }
    Ok(params)
}

/// 16 random bytes, positive and of full length.
fn serial(rng: &mut dyn RandomSource) -> SerialNumber {
    let mut bytes = *secret::<16>(rng);
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from_slice(&bytes)
}

/// Our key as rcgen's issuer wants it.
struct CertificateKey<'a>(&'a SigningKey);

impl PublicKeyData for CertificateKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public().point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for CertificateKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign_asn1(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A node's public key as rcgen wants it.
struct SubjectKey<'a>(&'a VerifyingKey);

impl PublicKeyData for SubjectKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests;
