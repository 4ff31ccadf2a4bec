//! Flow records.

use std::sync::Arc;

use trireme_flow::{Action, Budget, FlowEvent, FlowKey, FlowRecord, Party, Reason, RecordKey};
use trireme_identity::time::Now;
use trireme_identity::{Direction, TagSet};
use trireme_policy::{Decision, Peer};
use trireme_token::{TokenId, Verified};

use super::authenticate::EVERYBODY;
use super::refuse::Refused;
use super::{Context, Engine, Unit};
use crate::Effect;

/// Where and when a decision was taken.
pub(super) struct Scene<'a> {
    pub(super) unit: &'a Unit,
    pub(super) key: FlowKey,
    pub(super) now: Now,
}

impl Engine {
    /// Records a decision about the packet at hand.
    pub(super) fn record<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        about: &Refused,
        action: Action,
        observed: Option<Action>,
    ) {
        let scene = Scene { unit: &cx.unit, key: cx.key, now: cx.now };
        self.record_in(&scene, cx.out, about, action, observed);
    }

    /// Records a decision; equal ones within the interval become one record.
    pub(super) fn record_in(
        &mut self,
        scene: &Scene<'_>,
        out: &mut Vec<Effect>,
        about: &Refused,
        action: Action,
        observed: Option<Action>,
    ) {
        let Scene { key, now, .. } = *scene;
        let (source, destination) = match about.direction {
            Direction::Ingress => (key.remote, key.local),
            Direction::Egress => (key.local, key.remote),
        };
        let observed = observed.or_else(|| observed_by_rule(about.decision.as_ref(), action));
        let name = RecordKey {
            pu: key.pu,
            direction: about.direction,
            protocol: key.protocol,
            source: source.0,
            destination,
            peer: about.peer.as_ref().map_or(TokenId::ZERO, |peer| peer.id),
            action,
            observed,
            rule: about.decision.as_ref().and_then(|decision| decision.rule_number),
            reason: about.reason,
        };
        let explanations = &mut self.explanations;
        let record = self.records.note(name, now, || record_of(scene, explanations, about, action, observed));
        if let Some(record) = record {
            out.push(Effect::Record(record));
        }
    }

    /// The record of one decision.
    pub(super) fn record_of(
        &mut self,
        scene: &Scene<'_>,
        about: &Refused,
        action: Action,
        observed: Option<Action>,
    ) -> FlowRecord {
        let observed = observed.or_else(|| observed_by_rule(about.decision.as_ref(), action));
        record_of(scene, &mut self.explanations, about, action, observed)
    }

    /// Counts and records something noteworthy that does not stop the packet.
    pub(super) fn note<V>(&mut self, cx: &mut Context<'_, V>, direction: Direction, reason: Reason) {
        self.count(cx.slot, reason);
        self.record(cx, &Refused::new(direction, reason), Action::Accept, None);
    }

    /// Counts and records an admitted connection.
    pub(super) fn record_accept<V>(&mut self, cx: &mut Context<'_, V>, about: &Refused) {
        self.count(cx.slot, about.reason);
        self.record(cx, about, Action::Accept, None);
    }
}

/// The record of one decision.
fn record_of(
    scene: &Scene<'_>,
    explanations: &mut Budget,
    about: &Refused,
    action: Action,
    observed: Option<Action>,
) -> FlowRecord {
    let Scene { unit, key, now } = *scene;
    let local = Party {
        id: Some(unit.id.clone()),
        node: None,
        token: None,
        tags: unit.tags.clone(),
        address: key.local.0,
        port: key.local.1,
    };
    let remote = remote_party(about.peer.as_ref(), key.remote);
    let (source, destination) = match about.direction {
        Direction::Ingress => (remote, local),
        Direction::Egress => (local, remote),
    };
    let decision = about.decision.as_ref();
    let text = |name: &Option<Arc<str>>| name.as_deref().map(str::to_owned);
    let explained = about.decision.is_some() && explanations.try_take(EVERYBODY, now.monotonic);
    FlowRecord {
        pu: unit.id.clone(),
        direction: about.direction,
        source,
        destination,
        attested: about.attested.filter(|attested| *attested != key.remote),
        protocol: key.protocol,
        action,
        observed,
        policy: decision.and_then(|decision| text(&decision.policy_id)),
        rule: decision.and_then(|decision| text(&decision.rule_name)),
        rule_number: decision.and_then(|decision| decision.rule_number),
        reason: about.reason,
        explanation: match about.note.clone() {
            Some(note) => Some(note),
            None if explained && rejects(action, observed) => explain(unit, about, key),
            None => None,
        },
        event: FlowEvent::Decision,
        traffic: None,
        count: 1,
        first_seen: now.wall,
        last_seen: now.wall,
    }
}

fn observed_by_rule(decision: Option<&Decision>, action: Action) -> Option<Action> {
    let observed = match decision?.observed.as_ref()?.action {
        trireme_policy::Action::Accept => Action::Accept,
        trireme_policy::Action::Reject => Action::Reject,
    };
    (observed != action).then_some(observed)
}

const fn rejects(action: Action, observed: Option<Action>) -> bool {
    matches!(action, Action::Reject) || matches!(observed, Some(Action::Reject))
}

fn remote_party(peer: Option<&Arc<Verified>>, (address, port): (std::net::IpAddr, u16)) -> Party {
    Party {
        id: peer.map(|peer| peer.claims.subject.clone()),
        node: peer.map(|peer| peer.claims.issuer.clone()),
        token: peer.map(|peer| peer.id),
        tags: peer.map_or_else(TagSet::new, |peer| peer.policy_tags.clone()),
        address,
        port,
    }
}

fn explain(unit: &Unit, about: &Refused, key: FlowKey) -> Option<String> {
    let (remote, protocol) = (key.remote.0, key.protocol);
    let port = about.port?;
    let explanation = match &about.peer {
        Some(peer) => {
            let claims = Peer { tags: &peer.policy_tags, partial: peer.claims.partial };
            unit.policy.explain_at(about.direction, &claims, Some(remote), port, protocol)
        }
        None => unit.policy.explain_ip(about.direction, remote, port, protocol),
    };
    Some(explanation.to_string())
}
