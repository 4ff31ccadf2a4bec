//! The bodies of the API, version 1. Fields are added, never renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trireme_flow::FlowRecord;
use trireme_identity::time::WallTime;
use trireme_identity::{Direction, NodeId, PuId, TagSet};
use trireme_policy::Explanation;

/// `GET /v1/status`: what the agent is and does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its node.
    pub node: NodeId,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: WallTime,
    /// What enforces, and why this was chosen.
    pub datapath: DatapathStatus,
    /// Where policy comes from.
    pub policy: PolicyStatus,
    /// How nodes prove who they are: `psk`, or `pki` with the form of the credential.
    pub secrets: String,
    /// `mutual` or `receiver-only`.
    pub authorization: String,
    /// `cwt` or `jwt`.
    pub encoding: String,
    /// What an operator could misread as protection.
    pub warnings: Vec<Warning>,
    /// The processing units.
    pub pus: Vec<PuStatus>,
    /// Flow records taken since the start.
    pub flow_records: u64,
    /// What is refused although it verifies; absent without a deny list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_list: Option<DenyListStatus>,
}

/// What is refused although it verifies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyListStatus {
    /// The file.
    pub source: String,
    /// How many keys, tokens and nodes it names.
    pub entries: u64,
    /// When the version in force was read.
    pub loaded_at: WallTime,
    /// Why a newer version is not in force.
    pub error: Option<String>,
}

/// What enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// `bpf`.
    pub kind: String,
    /// Why it was chosen, what it found.
    pub detail: String,
    /// Table sizes and other gauges, by name.
    pub gauges: BTreeMap<String, u64>,
    /// Packets dropped or passed by reason, per unit.
    pub counters: Vec<Counter>,
}

/// How often one reason decided about packets of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The unit; absent for packets that belong to none.
    pub pu: Option<PuId>,
    /// The reason's name.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Where policy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The source, for example a file path.
    pub source: String,
    /// Counts the versions that came into force since the start.
    pub revision: u64,
    /// When the version in force was read.
    pub loaded_at: WallTime,
    /// Why a newer version is not in force.
    pub error: Option<String>,
}

/// Something that could be misread as protection, or that needs attention.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// A stable name.
    pub code: String,
    /// The whole sentence.
    pub text: String,
}

/// One processing unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PuStatus {
    /// Its id.
    pub id: PuId,
    /// Whether it is enforced.
    pub state: PuState,
    /// Where its packets are caught.
    pub edge: String,
    /// `enforce`, `observe` or `off`.
    pub mode: String,
    /// The policy epoch its connections were authorized in.
    pub epoch: u32,
    /// Its identity.
    pub tags: TagSet,
    /// Rules for incoming connections: `unrestricted`, `nothing allowed` or how many.
    pub ingress: String,
    /// Rules for outgoing connections, likewise.
    pub egress: String,
    /// Why it is not enforced as it should be.
    pub error: Option<String>,
    /// How it is enforced; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<PuDatapath>,
}

/// How the data path enforces a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuDatapath {
    /// Whether handshakes of known identities stay in the kernel.
    pub fast_path: bool,
    /// What happens while no agent answers: `closed`, `open` or `last-known-for <seconds>s`.
    pub fail_mode: String,
    /// Whether its packets are caught.
    pub edge: EdgeState,
    /// Connections older than its first enforcement that were let go on, since its state was made.
    pub adopted: u64,
    /// Why older connections could not be listed; they are dropped then.
    pub adoption_error: Option<String>,
    /// How often somebody else's changes to its edge were found and undone, since the agent's start.
    pub repairs: u64,
    /// The last of them.
    pub last_repair: Option<Repair>,
}

/// Whether a unit's packets are caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeState {
    /// Where the unit cannot get past.
    Attached,
    /// Inside its own network namespace: whoever has `CAP_NET_RAW` there gets past.
    Advisory,
    /// The interface or namespace is gone.
    Vanished,
    /// Somebody else removed or replaced the programs, and they cannot be put back.
    Damaged,
}

/// A change to a unit's edge that was found and undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// When it was found.
    pub at: WallTime,
    /// What it was.
    pub text: String,
}

/// Whether a unit is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PuState {
    /// Known, without a network.
    Created,
    /// Its packets are judged.
    Enforced,
    /// Known, its edge is released.
    Stopped,
    /// It could not be enforced; see its error.
    Failed,
}

/// One line of `GET /v1/flows` (newline-delimited JSON).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowLine {
    /// A record.
    Flow {
        /// Counts every record since the agent's start, from 1.
        sequence: u64,
        /// The record.
        record: Box<FlowRecord>,
    },
    /// The reader was too slow: this many records are missing here.
    Missed(u64),
}

/// `POST /v1/explain`: would a connection be allowed?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Identity of the initiator.
    pub from: TagSet,
    /// Identity of the responder.
    pub to: TagSet,
    /// Destination port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// The answer to [`ExplainRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainReply {
    /// Whether every end that has a say accepts.
    pub allowed: bool,
    /// What each end says: the initiator's egress first, the responder's ingress after it.
    pub ends: Vec<EndReply>,
}

/// What one end of the connection says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndReply {
    /// Whose rules were asked: egress are the initiator's, ingress the responder's.
    pub direction: Direction,
    /// Whether this end accepts.
    pub accepts: bool,
    /// Why, for people.
    pub text: String,
    /// Why, for programs.
    pub explanation: Explanation,
}

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
}
