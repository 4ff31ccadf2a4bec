//! Agreement keys and the pair keys two nodes derive from them.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::random::{RandomSource, secret};
use crate::{AgreementPublic, MacKey, Psk};

/// Why no pair keys can be derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The peer's public key has low order: the shared secret would be known to everybody.
    #[error("the peer's agreement key gives an all-zero shared secret")]
    ZeroSharedSecret,
    /// The crypto library refused the derivation.
    #[error("the crypto library refused the key derivation")]
    Crypto,
}

/// The end of a connection a node stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It sent the SYN.
    Initiator,
    /// It answered the SYN.
    Responder,
}

impl Role {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    const fn label(self) -> &'static [u8] {
        match self {
            Self::Initiator => b"initiator",
            Self::Responder => b"responder",
        }
    }
}

/// The trust mode the pair keys belong to.
#[derive(Clone, Copy, Debug)]
pub enum PairMode<'a> {
    /// Node keys certify the tokens: the shared secret alone.
    Pki,
    /// A pre-shared key certifies them, and is mixed in.
    Psk(&'a Psk),
}

/// A node's private X25519 key, which makes its tokens useless to a thief.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AgreementKey {
    private: [u8; 32],
    #[zeroize(skip)]
    public: AgreementPublic,
}

impl AgreementKey {
    /// Takes 32 random bytes as the private key.
    ///
    /// # Errors
    /// [`PairError::Crypto`] if the crypto library refuses it.
    pub fn from_bytes(private: [u8; 32]) -> Result<Self, PairError> {
        let private = Zeroizing::new(private);
        let key = PrivateKey::from_private_key(&X25519, private.as_slice()).map_err(|_| PairError::Crypto)?;
        let public = key.compute_public_key().map_err(|_| PairError::Crypto)?;
        let public = <[u8; 32]>::try_from(public.as_ref()).map_err(|_| PairError::Crypto)?;
        Ok(Self { private: *private, public: AgreementPublic(public) })
    }

    /// Draws a new key.
    ///
    /// # Errors
    /// As [`AgreementKey::from_bytes`].
    pub fn generate(rng: &mut dyn RandomSource) -> Result<Self, PairError> {
        Self::from_bytes(*secret::<32>(rng))
    }

    /// The half that goes into tokens.
    #[must_use]
    pub const fn public(&self) -> AgreementPublic {
        self.public
    }

    /// The private bytes, to be kept (0600) over a restart.
    pub(crate) fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.private)
    }
}

impl std::fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgreementKey").field("private", &"redacted").field("public", &self.public).finish()
    }
}

/// The two MAC keys of an ordered pair of agreement keys.
#[derive(Clone, Debug)]
pub struct PairKeys {
    /// For what the initiator sends.
    pub initiator: MacKey,
    /// For what the responder sends.
    pub responder: MacKey,
}

impl PairKeys {
    /// The key for what `role` sends.
    #[must_use]
    pub const fn of(&self, role: Role) -> &MacKey {
        match role {
            Role::Initiator => &self.initiator,
            Role::Responder => &self.responder,
        }
    }
}

/// Derives the MAC keys between this node and a peer.
///
/// `ikm = X25519(own, peer)` (PKI) or `PSK || X25519(own, peer)` (PSK);
/// `k = HKDF-SHA-256(ikm, salt = initiator's public || responder's public,
/// info = "tap/1" || "pki" or "psk" || "initiator" or "responder")`, 16 bytes for each sender's role.
///
/// # Errors
/// [`PairError::ZeroSharedSecret`] if the peer's key has low order.
pub fn pair_keys(
    own: &AgreementKey,
    peer: &AgreementPublic,
    own_role: Role,
    mode: PairMode<'_>,
) -> Result<PairKeys, PairError> {
    let shared = shared_secret(own, peer)?;
    let mut ikm = Zeroizing::new(Vec::with_capacity(MAX_IKM));
    let label: &[u8] = match mode {
        PairMode::Pki => b"pki",
        PairMode::Psk(psk) => {
            ikm.extend_from_slice(psk.secret_bytes());
            b"psk"
        }
    };
    ikm.extend_from_slice(shared.as_slice());
    let (initiator, responder) = match own_role {
        Role::Initiator => (own.public, *peer),
        Role::Responder => (*peer, own.public),
    };
    let salt = [initiator.0, responder.0].concat();
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&ikm);
    let key = |role: Role| {
        let mut bytes = Zeroizing::new([0; 16]);
        expand(&prk, &[b"tap/1", label, role.label()], bytes.as_mut_slice())
            .map_err(|_| PairError::Crypto)?;
        Ok(MacKey::from_bytes(*bytes))
    };
    Ok(PairKeys { initiator: key(Role::Initiator)?, responder: key(Role::Responder)? })
}

/// The longest PSK plus a shared secret: the buffer never moves and leaves no copy behind.
const MAX_IKM: usize = Psk::MAX_LEN + 32;

fn shared_secret(own: &AgreementKey, peer: &AgreementPublic) -> Result<Zeroizing<[u8; 32]>, PairError> {
    let key = PrivateKey::from_private_key(&X25519, &own.private).map_err(|_| PairError::Crypto)?;
    let mut shared = Zeroizing::new([0; 32]);
    agree(&key, UnparsedPublicKey::new(&X25519, peer.0), PairError::ZeroSharedSecret, |bytes| {
        for (to, from) in shared.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(())
    })?;
    if bool::from(shared.ct_eq(&[0; 32])) {
        return Err(PairError::ZeroSharedSecret);
    }
    Ok(shared)
}

/// Fills `out` with HKDF-Expand output.
pub(crate) fn expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) -> Result<(), PairError> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    prk.expand(info, Len(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| PairError::Crypto)
}

#[cfg(test)]
mod tests;
