//! A deny list comes into force.

use trireme_identity::time::Now;
use trireme_token::DenyList;

use super::Engine;
use crate::{Effect, Lesson};

impl Engine {
    /// Puts a deny list in force, in the verifier of the secrets as well; returns how many peers it names.
    ///
    /// What it names is refused from here on. Give every unit a new epoch afterwards: then live connections are judged
    /// again, and end even where changes of policy leave them alone.
    pub fn set_deny_list(&mut self, deny: DenyList, _now: Now, out: &mut Vec<Effect>) -> usize {
        self.tokens.revoke(&deny);
        self.secrets.verifier.set_deny_list(deny);
        let deny = self.secrets.verifier.deny_list();
        let denied = self.peers.denied(&deny, &self.secrets.verifier);
        let count = denied.len();
        out.extend(denied.into_iter().map(|token| Effect::Teach(Lesson::ForgetPeer(token))));
        count
    }
}
