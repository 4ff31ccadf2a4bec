//! Whether an authenticated peer, or an address, may talk to the unit.

use std::sync::Arc;

use trireme_flow::{FlowKey, Reason};
use trireme_identity::{Direction, Protocol};
use trireme_policy::{Action, CompiledPolicy, Decision, Mode, Peer, Ruleset, TierDefault};
use trireme_token::Verified;

use super::Unit;
use super::refuse::Refused;
use crate::{Authorize, Strictness};

/// Judges a peer by its claims; `port` is the responder's own port.
pub(super) fn peer(
    unit: &Unit,
    direction: Direction,
    key: FlowKey,
    peer: &Arc<Verified>,
    port: u16,
) -> Result<Option<Decision>, Box<Refused>> {
    if direction == Direction::Egress && unit.settings.authorize == Authorize::ReceiverOnly {
        return Ok(None);
    }
    let claims = Peer { tags: &peer.policy_tags, partial: peer.claims.partial };
    let decision = unit.policy.decide_at(direction, &claims, Some(key.remote.0), port, Protocol::TCP);
    match decision.action {
        Action::Accept => Ok(Some(decision)),
        Action::Reject => {
            let reason = match direction {
                Direction::Ingress => Reason::PolicyIngress,
                Direction::Egress => Reason::PolicyEgress,
            };
            Err(Refused::new(direction, reason).with_peer(peer).with_decision(decision).with_port(port))
        }
    }
}

/// Judges a peer without identity by its address. The reason tells whether it should have had one.
pub(super) fn address(
    unit: &Unit,
    direction: Direction,
    key: FlowKey,
) -> Result<(Decision, Reason), Box<Refused>> {
    let remote = key.remote.0;
    let expected = unit.settings.target_networks.contains(remote);
    if expected && unit.settings.strictness == Strictness::StrictIdentity {
        return Err(Refused::new(direction, Reason::StrictIdentity));
    }
    let port = match direction {
        Direction::Ingress => key.local.1,
        Direction::Egress => key.remote.1,
    };
    let decision = unit.policy.decide_ip(direction, remote, port, Protocol::TCP);
    match decision.action {
        Action::Accept => Ok((decision, if expected { Reason::Downgraded } else { Reason::Accepted })),
        Action::Reject => {
            let reason = match direction {
                Direction::Ingress => Reason::NetworkAcl,
                Direction::Egress => Reason::ApplicationAcl,
            };
            Err(Refused::new(direction, reason).with_decision(decision).with_port(port))
        }
    }
}

/// Whether nothing that the unit could send by TCP would ever be accepted.
///
/// Not by port: the port called may be a service's.
pub(super) fn has_no_egress(unit: &Unit) -> bool {
    if unit.settings.authorize == Authorize::ReceiverOnly || unit.policy.mode() != Mode::Enforce {
        return false;
    }
    let policy: &CompiledPolicy = &unit.policy;
    let source = policy.source();
    let restricted = matches!(source.egress, Ruleset::Rules(_));
    let by_default = source.tiers.egress.contains(&TierDefault::Accept);
    restricted && !by_default && !policy.has_rules_for(Direction::Egress, Protocol::TCP)
}
