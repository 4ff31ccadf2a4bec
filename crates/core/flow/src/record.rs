//! Flow records: what was decided about a connection, for people and collectors.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use trireme_identity::time::WallTime;
use trireme_identity::{Direction, NodeId, Protocol, PuId, TagSet};
use trireme_token::TokenId;

use crate::Reason;

/// What happened to the packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// They passed.
    Accept,
    /// They were dropped.
    Reject,
}

/// What went over connections that ended, from the IP header on, as the unit's edge saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Traffic {
    /// Packets that the unit sent.
    pub packets_from: u64,
    /// Bytes that the unit sent.
    pub bytes_from: u64,
    /// Packets that went to the unit.
    pub packets_to: u64,
    /// Bytes that went to the unit.
    pub bytes_to: u64,
}

/// What a record tells about connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowEvent {
    /// They began, or were refused.
    #[default]
    Decision,
    /// They ended.
    End,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The processing unit, if its identity is known.
    pub id: Option<PuId>,
    /// The certified node that vouches for it; absent for the reporting unit and for peers without identity.
    pub node: Option<NodeId>,
    /// The token that it showed, as `trireme keys revoke token` takes it; absent where `node` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// Its tags, synthetic ones included; empty when unknown.
    pub tags: TagSet,
    /// Its address as the reporting unit sees it.
    pub address: IpAddr,
    /// Its port as the reporting unit sees it.
    pub port: u16,
}

/// One decision, or many equal ones, about connections between two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The processing unit at whose edge the decision was taken.
    pub pu: PuId,
    /// Whether that unit is the one called (ingress) or the one calling (egress).
    pub direction: Direction,
    /// The end that opened the connection.
    pub source: Party,
    /// The end that was called.
    pub destination: Party,
    /// The responder's own end as it attested it, where it differs from the address called (a service, NAT).
    pub attested: Option<(IpAddr, u16)>,
    /// The IP protocol.
    pub protocol: Protocol,
    /// What happened.
    pub action: Action,
    /// What would have happened under enforcement, or under an observe rule, where that differs.
    pub observed: Option<Action>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The number of that rule inside its policy, as refusals carry it.
    pub rule_number: Option<u16>,
    /// Why.
    pub reason: Reason,
    /// The closest rule and what it missed, for refusals by policy, while the budget for explanations lasts.
    pub explanation: Option<String>,
    /// Whether it tells of beginnings or of ends.
    #[serde(default)]
    pub event: FlowEvent,
    /// What went over the connections, for ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// How many decisions or ends this record stands for.
    pub count: u64,
    /// When the first of them was taken.
    pub first_seen: WallTime,
    /// When the last of them was taken.
    pub last_seen: WallTime,
}
