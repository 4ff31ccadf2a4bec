//! Units and secrets come, change and go.

use std::sync::Arc;
use std::time::Duration;

use trireme_flow::{PuSlot, Reason};
use trireme_identity::time::Now;
use trireme_token::cache::TokenCache;
use trireme_token::rotation::Settings;

use super::{Engine, NO_UNIT};
use crate::{Effect, EngineError, Lesson, PuError, PuSpec, Secrets};

/// How long a failed rotation waits for the next attempt.
const RETRY: Duration = Duration::from_secs(5);

impl Engine {
    /// Takes a unit on, or changes one. A token for changed tags is made at once.
    ///
    /// Connections installed under another epoch are judged again when their next packet comes here.
    ///
    /// # Errors
    /// [`PuError`] if no token can be made or there is no room; the unit then stays as it was.
    pub fn upsert_pu(&mut self, spec: PuSpec, now: Now, out: &mut Vec<Effect>) -> Result<(), PuError> {
        if self.units.is_empty() {
            self.peers.begin_at(now.wall);
        }
        let before = self.units.get(&spec.slot).map(|unit| unit.id.clone());
        if before.is_none() && self.units.len() >= self.config.units {
            return Err(PuError::Full(self.config.units));
        }
        self.rotate_if_due(now, out);
        let identity = spec.settings.tag_filter.apply(&spec.tags);
        self.own
            .upsert(&self.secrets.signer, &spec.id, &identity, now.wall)
            .map_err(|source| PuError::token(&spec, source))?;
        if let Some(before) = before.filter(|before| *before != spec.id) {
            self.own.remove(&before);
        }
        let slot = spec.slot;
        self.units.insert(slot, Arc::new(spec));
        self.teach_own_tokens(slot, now.wall, out);
        Ok(())
    }

    /// Forgets a unit, its handshakes and what it held.
    pub fn remove_pu(&mut self, slot: PuSlot, _now: Now, out: &mut Vec<Effect>) {
        for key in self.handshakes.of_unit(slot) {
            for _ in self.held.take(key) {
                self.count(NO_UNIT, Reason::UnitRemoved);
            }
            if self.handshakes.remove(&key).is_some_and(|handshake| handshake.entry.is_some()) {
                out.push(Effect::Remove(key.flow));
            }
        }
        self.flows.retain(|key| key.pu != slot);
        self.fragments.remove_unit(slot);
        self.awaited.retain(|key| key.pu != slot);
        self.agents.forget_unit(slot);
        let waiting = self.waiting.take_all(|key| key.pu == slot).len();
        self.count_many(NO_UNIT, Reason::UnitRemoved, u64::try_from(waiting).unwrap_or(u64::MAX));
        if let Some(unit) = self.units.remove(&slot) {
            self.own.remove(&unit.id);
            out.push(Effect::Teach(Lesson::OwnTokens { pu: slot, tokens: Vec::new() }));
        }
        self.counters.retain(|(counted, _), _| *counted != slot);
    }

    /// Puts other secrets in force: every unit gets a new token, verified tokens and keys are forgotten.
    ///
    /// Packets that wait for a signature check are dropped, since the check was begun by the old verifier; their
    /// senders repeat them. Give the units a new epoch afterwards, so that live connections are judged again.
    ///
    /// # Errors
    /// [`EngineError::Secrets`] if a token cannot be made; the old secrets then stay in force.
    pub fn set_secrets(
        &mut self,
        secrets: Secrets,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<(), EngineError> {
        let settings = |secrets: &Secrets| Settings {
            encoding: secrets.encoding,
            lifetime_secs: self.config.token_lifetime_secs,
        };
        let (old, new) = (settings(&self.secrets), settings(&secrets));
        self.own.set_settings(new);
        if let Err(source) = self.own.rotate(&secrets.signer, now.wall, &mut self.random) {
            self.own.set_settings(old);
            return Err(EngineError::Secrets(source));
        }
        self.secrets = secrets;
        self.plan_rotation(now);
        if let Ok(capacity) = self.config.tokens.try_into() {
            self.tokens = TokenCache::new(capacity);
        }
        self.pair_keys.clear();
        self.known.clear();
        self.agents.forget_peers();
        let forgotten = self.peers.distrust().into_iter().map(Lesson::ForgetPeer);
        out.extend(forgotten.map(Effect::Teach));
        self.teach_all_own_tokens(now.wall, out);
        for packet in self.jobs.clear() {
            drop(self.refuse_waiting(packet, &Reason::TokenUnknown.into(), now, out));
        }
        Ok(())
    }

    /// Makes new tokens and a new agreement key at half of their life.
    pub(super) fn rotate_if_due(&mut self, now: Now, out: &mut Vec<Effect>) {
        if now.monotonic < self.rotate_at && now.wall < self.own.due_at() {
            return;
        }
        if now.wall < self.own.due_at() {
            self.plan_rotation(now);
            return;
        }
        match self.own.rotate(&self.secrets.signer, now.wall, &mut self.random) {
            Ok(()) => {
                self.plan_rotation(now);
                self.teach_all_own_tokens(now.wall, out);
            }
            Err(_) => {
                self.count(NO_UNIT, Reason::TokenUnavailable);
                self.rotate_at = now.monotonic + RETRY;
            }
        }
    }

    fn plan_rotation(&mut self, now: Now) {
        let left = self.own.due_at().0.saturating_sub(now.wall.0).max(1);
        self.rotate_at = now.monotonic + Duration::from_secs(left);
    }
}
