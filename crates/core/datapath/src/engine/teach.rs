//! What a back end that completes handshakes by itself is taught.

use std::sync::Arc;

use trireme_flow::{Placed, PuSlot, Reason};
use trireme_identity::Direction;
use trireme_identity::time::WallTime;
use trireme_policy::{Decision, Mode};
use trireme_token::rotation::OwnToken;
use trireme_token::{PairKeys, Role, TokenId, Verified};

use super::refuse::Refused;
use super::{Context, Engine, Unit};
use crate::{Authorize, Effect, KeyName, Lesson, NotifyPeer, OwnAttachment, Refusal};

/// A peer whose MAC has verified.
pub(super) struct Proven<'a> {
    pub(super) peer: &'a Arc<Verified>,
    pub(super) own: &'a OwnToken,
    /// The unit's role.
    pub(super) role: Role,
    pub(super) keys: &'a Arc<PairKeys>,
    /// Whether the MAC answers a nonce of ours, so that it cannot be an old one.
    pub(super) fresh: Fresh,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    Yes,
    No,
}

/// A judgement about a peer.
pub(super) type Verdict<'a> = Result<Option<&'a Decision>, &'a Refused>;

pub(super) fn verdict_of(judged: &Result<Option<Decision>, Box<Refused>>) -> Verdict<'_> {
    match judged {
        Ok(decision) => Ok(decision.as_ref()),
        Err(refused) => Err(refused),
    }
}

impl Engine {
    /// Remembers a peer and teaches who it is; returns its place.
    pub(super) fn teach_peer<V>(&mut self, cx: &mut Context<'_, V>, proven: &Proven<'_>) -> (u32, u32) {
        let Proven { peer, own, role, keys, fresh } = *proven;
        let Placed { place, generation, evicted } = self.peers.remember(peer);
        cx.out.extend(evicted.map(|token| Effect::Teach(Lesson::ForgetPeer(token))));
        let used = KeyName::from(own.key.public());
        let own_key = match self.peers.habits(&peer.id) {
            // A MAC of long ago must not bring an old key back.
            Some(habits) if fresh == Fresh::No => *habits.own_key.get_or_insert(used),
            Some(habits) => *habits.own_key.insert(used),
            None => used,
        };
        let key = KeyName::from(peer.claims.agreement);
        cx.out.push(Effect::Teach(Lesson::Peer {
            token: peer.id,
            slot: place,
            generation,
            until: peer.valid_until,
            key,
            own_key,
        }));
        cx.out.push(Effect::Teach(Lesson::Pair { own: used, peer: key, role, keys: Arc::clone(keys) }));
        (place, generation)
    }

    /// Teaches what the unit's policy says about a peer's connections, if it says so whatever the circumstances.
    pub(super) fn teach_verdict<V>(
        &self,
        cx: &mut Context<'_, V>,
        direction: Direction,
        (peer_slot, generation): (u32, u32),
        port: u16,
        verdict: Verdict<'_>,
    ) {
        if !cx.key.is_tcp() || !is_general(&cx.unit, direction, verdict) {
            return;
        }
        let decision = decision_of(verdict);
        cx.out.push(Effect::Teach(Lesson::Verdict {
            pu: cx.slot,
            direction,
            peer_slot,
            generation,
            port,
            epoch: cx.unit.epoch,
            rule: decision.and_then(|decision| decision.rule_number),
            reason: verdict.map_or_else(|refused| refused.reason, |_| Reason::Accepted),
        }));
    }

    /// Teaches to refuse an initiator that has shown a token but no MAC.
    pub(super) fn teach_refusal<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        peer: &Arc<Verified>,
        refused: &Refused,
    ) {
        if !cx.key.is_tcp() || !is_general(&cx.unit, Direction::Ingress, Err(refused)) {
            return;
        }
        let Placed { place, generation, .. } = self.refused.insert(peer.id, Arc::clone(peer));
        cx.out.push(Effect::Teach(Lesson::Refusal {
            pu: cx.slot,
            port: cx.key.local.1,
            token: peer.id,
            epoch: cx.unit.epoch,
            rule: refused.decision.as_ref().and_then(|decision| decision.rule_number),
            reason: refused.reason,
            until: peer.valid_until,
            slot: place,
            generation,
        }));
    }

    /// Teaches that the unit shows its identity at the address called, and who is known to be there.
    pub(super) fn teach_destination<V>(&self, cx: &mut Context<'_, V>, peer: Option<(TokenId, TokenId)>) {
        if !cx.key.is_tcp() || cx.unit.policy.mode() != Mode::Enforce {
            return;
        }
        let (pu, remote, epoch) = (cx.slot, cx.key.remote, cx.unit.epoch);
        cx.out.push(Effect::Teach(Lesson::Destination { pu, remote, epoch, peer }));
    }

    pub(super) fn forget_destination<V>(&mut self, cx: &mut Context<'_, V>) {
        self.known.remove(&(cx.slot, cx.key.remote));
        cx.out.push(Effect::Teach(Lesson::ForgetDestination { pu: cx.slot, remote: cx.key.remote }));
    }

    /// Teaches a unit's own tokens.
    pub(super) fn teach_own_tokens(&self, pu: PuSlot, now: WallTime, out: &mut Vec<Effect>) {
        let Some(unit) = self.units.get(&pu) else { return };
        let tokens = self.own.usable(&unit.id, now).into_iter().map(|own| OwnAttachment {
            id: own.token.id,
            key: own.key.public().into(),
            until: own.token.claims.expires_at,
            token: Arc::clone(&own.token.bytes),
            credential: Arc::clone(&own.token.credential),
        });
        out.push(Effect::Teach(Lesson::OwnTokens { pu, tokens: tokens.collect() }));
    }

    pub(super) fn teach_all_own_tokens(&self, now: WallTime, out: &mut Vec<Effect>) {
        for pu in self.units.keys() {
            self.teach_own_tokens(*pu, now, out);
        }
    }
}

/// Whether a judgement holds for the peer wherever it calls from, and asks for nothing but to let pass or to drop.
fn is_general(unit: &Unit, direction: Direction, verdict: Verdict<'_>) -> bool {
    let skipped = direction == Direction::Egress && unit.settings.authorize == Authorize::ReceiverOnly;
    let decision = decision_of(verdict);
    let silent = unit.settings.refusal == Refusal::Silent && unit.settings.notify_peer == NotifyPeer::Never;
    unit.policy.mode() == Mode::Enforce
        && (skipped || !unit.policy.judges_by_address(direction))
        && decision.is_none_or(|decision| decision.observed.is_none() && !decision.log && !decision.encrypt)
        && (verdict.is_ok() || silent)
}

fn decision_of(verdict: Verdict<'_>) -> Option<&Decision> {
    match verdict {
        Ok(decision) => decision,
        Err(refused) => refused.decision.as_ref(),
    }
}
