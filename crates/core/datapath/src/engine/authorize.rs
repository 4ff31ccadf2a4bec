//! Whether an authenticated peer, or an address, may talk to the unit.

use std::sync::Arc;

use trireme_flow::{FlowKey, Reason};
use trireme_identity::{Direction, Protocol};
use trireme_policy::{Action, Basis, CompiledPolicy, Decision, Mode, Peer, Ruleset, TierDefault};
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
    if !unit.judges(direction, key.protocol) {
        return Ok(None);
    }
    let claims = Peer { tags: &peer.policy_tags, partial: peer.claims.partial };
    let decision = unit.policy.decide_at(direction, &claims, Some(key.remote.0), port, key.protocol);
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
    let (remote, protocol) = (key.remote.0, key.protocol);
    if !unit.judges(direction, protocol) {
        return Ok((Decision::unjudged(), Reason::Unjudged));
    }
    let expected = unit.settings.target_networks.contains(remote);
    if expected && unit.settings.strictness == Strictness::StrictIdentity {
        return Err(Refused::new(direction, Reason::StrictIdentity));
    }
    let port = called_port(direction, key);
    let decision = unit.policy.decide_ip(direction, remote, port, protocol);
    let ruled = decision.basis == Basis::Rule || protocol.has_ports() || protocol.is_icmp();
    if !ruled {
        return Err(Refused::new(direction, Reason::ProtocolDenied));
    }
    match decision.action {
        Action::Accept if expected && has_identity(protocol) => Ok((decision, Reason::Downgraded)),
        Action::Accept => Ok((decision, Reason::Accepted)),
        Action::Reject => {
            let reason = match direction {
                Direction::Ingress => Reason::NetworkAcl,
                Direction::Egress => Reason::ApplicationAcl,
            };
            Err(Refused::new(direction, reason).with_decision(decision).with_port(port))
        }
    }
}

/// The port of the end that was called.
pub(super) const fn called_port(direction: Direction, key: FlowKey) -> u16 {
    match direction {
        Direction::Ingress => key.local.1,
        Direction::Egress => key.remote.1,
    }
}

/// Whether a peer can show its identity over this protocol.
pub(super) const fn has_identity(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP)
}

/// Whether nothing that the unit could send by this protocol would ever be accepted.
///
/// Not by port: the port called may be a service's.
pub(super) fn has_no_egress(unit: &Unit, protocol: Protocol) -> bool {
    if unit.settings.authorize == Authorize::ReceiverOnly || unit.policy.mode() != Mode::Enforce {
        return false;
    }
    let policy: &CompiledPolicy = &unit.policy;
    let source = policy.source();
    let restricted = matches!(source.egress, Ruleset::Rules(_));
    let by_default = source.tiers.egress.contains(&TierDefault::Accept);
    restricted && !by_default && !policy.has_rules_for(Direction::Egress, protocol)
}
