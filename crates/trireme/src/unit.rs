//! A processing unit ready to be enforced: facts, identity, policy and settings together.

use std::sync::Arc;

use trireme_datapath::PuSettings;
use trireme_identity::{PuId, TagSet};
use trireme_policy::{CompiledPolicy, Ruleset};

use crate::{Pu, Resolved};

/// What becomes of a unit's traffic that is not TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherProtocols {
    /// It is dropped, except what IP itself needs (ARP, neighbour discovery, ICMP errors of known connections).
    #[default]
    Deny,
    /// It passes unjudged.
    Allow,
}

/// How a unit is enforced, beside its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitSettings {
    /// How its TCP connections are judged.
    pub tcp: PuSettings,
    /// What becomes of everything else.
    pub other_protocols: OtherProtocols,
}

/// A unit as a data path gets it.
#[derive(Clone, Debug)]
pub struct Enforcement {
    /// The unit and where its packets are caught.
    pub pu: Pu,
    /// The tags its token carries.
    pub identity: TagSet,
    /// Tags that are only reported.
    pub annotations: TagSet,
    /// Its policy; [`CompiledPolicy::source`] is what another process can compile again.
    pub policy: Arc<CompiledPolicy>,
    /// How it is enforced.
    pub settings: UnitSettings,
}

impl Enforcement {
    pub(crate) fn new(pu: Pu, resolved: Resolved) -> Result<Self, trireme_policy::CompileError> {
        let Resolved { policy, identity, annotations, settings } = resolved;
        let policy = Arc::new(CompiledPolicy::compile(&policy)?);
        Ok(Self { pu, identity, annotations, policy, settings })
    }

    /// The unit's id.
    #[must_use]
    pub const fn id(&self) -> &PuId {
        &self.pu.id
    }
}

/// Says in two or three words what a rule set lets through.
pub(crate) fn describe<T>(rules: &Ruleset<T>) -> String {
    match rules {
        Ruleset::Unrestricted => "unrestricted".to_owned(),
        Ruleset::Rules(rules) => match rules.len() {
            0 => "nothing allowed".to_owned(),
            1 => "1 rule".to_owned(),
            many => format!("{many} rules"),
        },
    }
}
