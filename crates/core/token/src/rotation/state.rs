//! Own tokens over a restart: without them, peers' retransmitted SYNs would name keys that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use trireme_identity::PuId;
use trireme_identity::time::WallTime;
use zeroize::{Zeroize, Zeroizing};

use super::{Epoch, OwnToken, OwnTokens, Retired, Settings, Unit};
use crate::{AgreementKey, Encoding, Signer};

/// Why kept state cannot be used; start anew instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not what [`OwnTokens::export`] wrote.
    #[error("the kept token state is damaged")]
    Damaged,
    /// A token in it is not of this node's trust mode, or its key does not fit.
    #[error("the kept token state belongs to another trust mode or key")]
    Foreign,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u8,
    encoding: Encoding,
    lifetime_secs: u64,
    key: SecretText,
    began_at: WallTime,
    units: BTreeMap<PuId, UnitState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitState {
    current: TokenState,
    retired: Vec<RetiredState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenState {
    token: String,
    encoding: Encoding,
    key: SecretText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetiredState {
    own: TokenState,
    accept_until: WallTime,
}

const VERSION: u8 = 1;

impl OwnTokens {
    /// Writes everything, private keys included: the caller keeps it in a file of mode 0600.
    ///
    /// # Errors
    /// [`StateError::Damaged`] if it cannot be written.
    pub fn export(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let state = State {
            version: VERSION,
            encoding: self.settings.encoding,
            lifetime_secs: self.settings.lifetime_secs,
            key: SecretText::of(&self.epoch.key),
            began_at: self.epoch.began_at,
            units: self.units.iter().map(|(subject, unit)| (subject.clone(), unit.to_state())).collect(),
        };
        let mut out = Zeroizing::new(Vec::with_capacity(4096 + 16 * 1024 * self.units.len()));
        serde_json::to_writer(&mut *out, &state).map_err(|_| StateError::Damaged)?;
        Ok(out)
    }

    /// Reads what [`export`](Self::export) wrote; call [`rotate`](Self::rotate) when it is due.
    ///
    /// # Errors
    /// [`StateError`] if it is damaged or of another trust mode.
    pub fn import(state: &[u8], signer: &Signer) -> Result<Self, StateError> {
        let state: State = serde_json::from_slice(state).map_err(|_| StateError::Damaged)?;
        if state.version != VERSION {
            return Err(StateError::Damaged);
        }
        let units = state
            .units
            .into_iter()
            .map(|(subject, unit)| Ok((subject, unit.restore(signer)?)))
            .collect::<Result<_, StateError>>()?;
        Ok(Self {
            settings: Settings { encoding: state.encoding, lifetime_secs: state.lifetime_secs },
            epoch: Epoch { key: state.key.restore()?, began_at: state.began_at },
            units,
        })
    }
}

impl Unit {
    fn to_state(&self) -> UnitState {
        let retired = self.retired.iter().map(|retired| RetiredState {
            own: TokenState::of(&retired.own),
            accept_until: retired.accept_until,
        });
        UnitState { current: TokenState::of(&self.current), retired: retired.collect() }
    }
}

impl UnitState {
    fn restore(self, signer: &Signer) -> Result<Unit, StateError> {
        let retired = self.retired.into_iter().map(|retired| {
            Ok(Retired { own: retired.own.restore(signer)?, accept_until: retired.accept_until })
        });
        Ok(Unit {
            current: self.current.restore(signer)?,
            retired: retired.collect::<Result<_, StateError>>()?,
        })
    }
}

impl TokenState {
    fn of(own: &OwnToken) -> Self {
        Self {
            token: URL_SAFE_NO_PAD.encode(&own.token.bytes),
            encoding: own.token.encoding,
            key: SecretText::of(&own.key),
        }
    }

    fn restore(self, signer: &Signer) -> Result<OwnToken, StateError> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.token).map_err(|_| StateError::Damaged)?;
        let token = signer.reread(&bytes, self.encoding).ok_or(StateError::Foreign)?;
        let key = self.key.restore()?;
        if key.public() != token.claims.agreement {
            return Err(StateError::Foreign);
        }
        Ok(OwnToken { token, key })
    }
}

/// A private key as base64url, wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct SecretText(String);

impl SecretText {
    fn of(key: &AgreementKey) -> Self {
        Self(URL_SAFE_NO_PAD.encode(key.secret_bytes().as_slice()))
    }

    fn restore(&self) -> Result<Arc<AgreementKey>, StateError> {
        let mut bytes = Zeroizing::new([0; 32]);
        match URL_SAFE_NO_PAD.decode_slice(&self.0, bytes.as_mut_slice()) {
            Ok(32) => AgreementKey::from_bytes(*bytes).map(Arc::new).map_err(|_| StateError::Damaged),
            Ok(_) | Err(_) => Err(StateError::Damaged),
        }
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
