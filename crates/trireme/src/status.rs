//! What the controller and its parts are doing.

use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, PuId, TagSet};
use trireme_policy::Mode;
use trireme_token::Encoding;

use crate::datapath::{DatapathReport, UnitReport};
use crate::deny_file::DenyListStatus;
use crate::{ResolverStatus, SecretsKind, Warning};

/// A picture of everything an operator asks about.
#[derive(Clone, Debug)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// When the controller started.
    pub started_at: WallTime,
    /// The data path's name.
    pub datapath: String,
    /// What it is doing; an error text if it does not answer.
    pub report: Result<DatapathReport, String>,
    /// What the policy resolver works from.
    pub policy: ResolverStatus,
    /// What is denied, if there is a deny list.
    pub deny_list: Option<DenyListStatus>,
    /// How nodes prove who they are.
    pub secrets: SecretsKind,
    /// The form of the node's tokens.
    pub encoding: Encoding,
    /// What could be misread as protection.
    pub warnings: Vec<Warning>,
    /// The units.
    pub units: Vec<UnitStatus>,
}

/// One unit.
#[derive(Clone, Debug)]
pub struct UnitStatus {
    /// Its id.
    pub id: PuId,
    /// Whether it is enforced.
    pub state: UnitState,
    /// Where its packets are caught, if it has a network.
    pub edge: Option<String>,
    /// What becomes of its verdicts; absent before its policy is known.
    pub mode: Option<Mode>,
    /// Its policy epoch.
    pub epoch: u32,
    /// Its identity.
    pub identity: TagSet,
    /// What its ingress rules let through, in short.
    pub ingress: String,
    /// What its egress rules let through, in short.
    pub egress: String,
    /// Why it is not enforced as it should be.
    pub error: Option<String>,
    /// How the data path enforces it.
    pub datapath: Option<UnitReport>,
}

/// Whether a unit is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// Known, without a network.
    Created,
    /// Its packets are judged.
    Enforced,
    /// Known, its edge is released.
    Stopped,
    /// It could not be enforced.
    Failed,
}
