//! ECDSA keys on P-256 with signatures in one form only.

mod low_s;

use std::sync::Arc;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair, ParsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::KeyId;
use crate::id::sha256;
use crate::random::{RandomSource, secret};

/// Why bytes are not a usable P-256 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PEM file with a `PRIVATE KEY` (PKCS#8) section.
    #[error("not a PEM file with a PKCS#8 PRIVATE KEY section")]
    NotPem,
    /// Not an unencrypted PKCS#8 private key on P-256.
    #[error("not an unencrypted PKCS#8 private key on P-256")]
    NotPrivateKey,
    /// Not a public key on P-256 in uncompressed SubjectPublicKeyInfo form.
    #[error("not a P-256 public key in SubjectPublicKeyInfo form")]
    NotPublicKey,
    /// The crypto library refused.
    #[error("the crypto library refused the key")]
    Crypto,
}

/// DER before the 65-byte point in the SubjectPublicKeyInfo of every P-256 key (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_LEN: usize = 65;
/// The length of r || s.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// A private P-256 key that signs tokens, certificates or key tokens.
#[derive(Clone)]
pub struct SigningKey {
    fixed: Arc<EcdsaKeyPair>,
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    public: VerifyingKey,
}

impl SigningKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the source gives no valid scalar in 64 draws or the library refuses.
    pub fn generate(rng: &mut dyn RandomSource) -> Result<Self, KeyError> {
        for _ in 0..64 {
            let scalar = secret::<32>(rng);
            let Ok(private) = PrivateKey::from_private_key(&ECDH_P256, scalar.as_slice()) else {
                continue;
            };
            let public = private.compute_public_key().map_err(|_| KeyError::Crypto)?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                scalar.as_slice(),
                public.as_ref(),
            )
            .map_err(|_| KeyError::Crypto)?;
            return Self::from_pair(pair);
        }
        Err(KeyError::Crypto)
    }

    /// Reads an unencrypted PKCS#8 key.
    ///
    /// # Errors
    /// [`KeyError::NotPrivateKey`] for anything else, also for other curves.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| KeyError::NotPrivateKey)?;
        Self::from_pair(pair)
    }

    /// Reads the first `PRIVATE KEY` section of a PEM text.
    ///
    /// # Errors
    /// [`KeyError::NotPem`] if there is none, [`KeyError::NotPrivateKey`] if it is not a P-256 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotPem)?;
        let PrivatePkcs8KeyDer { .. } = &der;
        Self::from_pkcs8_der(der.secret_pkcs8_der())
    }

    /// The key as PKCS#8 PEM, for a file of mode 0600.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let section = pem::Pem::new("PRIVATE KEY", self.pkcs8.to_vec());
        let text = Zeroizing::new(crate::credential::pem_text(&section));
        drop(Zeroizing::new(section.into_contents()));
        text
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs with low s: r || s, 64 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], KeyError> {
        let signature = self.fixed.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Crypto)?;
        let mut bytes = <[u8; SIGNATURE_LEN]>::try_from(signature.as_ref()).map_err(|_| KeyError::Crypto)?;
        low_s::normalize(&mut bytes);
        Ok(bytes)
    }

    /// Signs in the ASN.1 form that certificates use.
    pub(crate) fn sign_asn1(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.pkcs8)
            .map_err(|_| KeyError::Crypto)?;
        let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Crypto)?;
        Ok(signature.as_ref().to_vec())
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?;
        let public = VerifyingKey::from_point(pair.public_key().as_ref())?;
        Ok(Self {
            fixed: Arc::new(pair),
            pkcs8: Arc::new(Zeroizing::new(document.as_ref().to_vec())),
            public,
        })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("private", &"redacted").field("public", &self.public).finish()
    }
}

/// A public P-256 key that checks signatures.
#[derive(Clone)]
pub struct VerifyingKey {
    parsed: ParsedPublicKey,
    spki: [u8; SPKI_PREFIX.len() + POINT_LEN],
    id: KeyId,
}

impl VerifyingKey {
    /// Reads a SubjectPublicKeyInfo with an uncompressed point and the named curve.
    ///
    /// # Errors
    /// [`KeyError::NotPublicKey`] for anything else.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::NotPublicKey).and_then(Self::from_point)
    }

    /// Reads a `PUBLIC KEY` section of a PEM text.
    ///
    /// # Errors
    /// [`KeyError::NotPublicKey`] for anything else.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = rustls_pki_types::SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| KeyError::NotPublicKey)?;
        Self::from_spki_der(der.as_ref())
    }

    /// The key as a `PUBLIC KEY` PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        crate::credential::pem_text(&pem::Pem::new("PUBLIC KEY", self.spki.to_vec()))
    }

    /// The key as SubjectPublicKeyInfo.
    #[must_use]
    pub const fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Reads x and the parity of y (33 bytes, SEC 1 compressed).
    pub(crate) fn from_compressed(point: &[u8; 33]) -> Result<Self, KeyError> {
        if !matches!(point, [2 | 3, ..]) {
            return Err(KeyError::NotPublicKey);
        }
        let parsed =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| KeyError::NotPublicKey)?;
        let spki: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| KeyError::Crypto)?;
        Self::from_spki_der(spki.as_ref())
    }

    /// x and the parity of y (33 bytes, SEC 1 compressed).
    pub(crate) fn compressed(&self) -> [u8; 33] {
        let mut out = [2; 33];
        let point = self.spki.iter().skip(SPKI_PREFIX.len());
        for (to, from) in out.iter_mut().zip(point.take(33)) {
            *to = *from;
        }
        if let (Some(sign), Some(last)) = (out.first_mut(), self.spki.last()) {
            *sign = 2 | (last & 1);
        }
        out
    }

    /// The 65-byte uncompressed point.
    pub(crate) fn point(&self) -> &[u8] {
        self.spki.get(SPKI_PREFIX.len()..).unwrap_or_default()
    }

    /// Checks r || s, low s only.
    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), SignatureError> {
        if !low_s::is_low(signature) {
            return Err(SignatureError::HighS);
        }
        self.parsed.verify_sig(message, signature).map_err(|_| SignatureError::Bad)
    }

    fn from_point(point: &[u8]) -> Result<Self, KeyError> {
        let mut spki = [0; SPKI_PREFIX.len() + POINT_LEN];
        if point.len() != POINT_LEN || point.first() != Some(&4) {
            return Err(KeyError::NotPublicKey);
        }
        for (to, from) in spki.iter_mut().zip(SPKI_PREFIX.iter().chain(point)) {
            *to = *from;
        }
        let parsed =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| KeyError::NotPublicKey)?;
        Ok(Self { parsed, id: KeyId(sha256(&spki)), spki })
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for VerifyingKey {}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({})", self.id)
    }
}

/// Why a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureError {
    HighS,
    Bad,
}

#[cfg(test)]
pub(crate) use low_s::negate as negate_s;

#[cfg(test)]
mod tests;
