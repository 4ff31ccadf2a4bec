//! Own tokens over a restart: without them peers' retransmitted segments would name agreement keys that are gone.

use trireme_identity::PuId;
use trireme_token::rotation::{OwnTokens, Settings, StateError};
use zeroize::Zeroizing;

use super::Engine;

impl Engine {
    /// Writes the own tokens with their agreement keys, private halves included: the caller keeps them in a file of
    /// mode 0600.
    ///
    /// # Errors
    /// [`StateError`] if they cannot be written.
    pub fn export_tokens(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        self.own.export()
    }

    /// Goes on with the tokens that an earlier engine exported; to be called before the first unit is taken on.
    ///
    /// Tokens past half of their life are replaced when the first unit arrives, their keys stay accepted for one
    /// lifetime.
    ///
    /// # Errors
    /// [`StateError`] if they are damaged or of another trust mode; the engine then begins with new ones.
    pub fn import_tokens(&mut self, state: &[u8]) -> Result<(), StateError> {
        let mut own = OwnTokens::import(state, &self.secrets.signer)?;
        own.set_settings(Settings {
            encoding: self.secrets.encoding,
            lifetime_secs: self.config.token_lifetime_secs,
        });
        self.own = own;
        Ok(())
    }

    /// Forgets imported tokens of a unit that was not taken on again.
    pub fn forget_tokens_of(&mut self, id: &PuId) {
        if self.units.values().all(|unit| unit.id != *id) {
            self.own.remove(id);
        }
    }
}
