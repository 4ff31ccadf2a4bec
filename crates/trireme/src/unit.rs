//! A processing unit ready to be enforced: facts, identity, policy and settings together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trireme_datapath::PuSettings;
use trireme_identity::{PuId, TagSet};
use trireme_policy::{CompiledPolicy, Mode, Ruleset};

use crate::{Pu, Resolved};

/// What becomes of a unit's traffic that is not TCP and that no rule speaks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherProtocols {
    /// It is judged as the policy judges what no rule speaks about, except what IP itself needs (ARP, neighbour discovery,
    /// ICMP errors of known connections).
    #[default]
    Deny,
    /// It passes unjudged.
    Allow,
}

impl From<OtherProtocols> for trireme_datapath::OtherProtocols {
    fn from(setting: OtherProtocols) -> Self {
        match setting {
            OtherProtocols::Deny => Self::Deny,
            OtherProtocols::Allow => Self::Allow,
        }
    }
}

/// What becomes of connections that need the agent while no agent answers. Established ones go on in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailMode {
    /// Known identities go on connecting while their tokens are valid; everything else is dropped.
    #[default]
    Closed,
    /// As closed, but tokens that were valid when the agent was heard last stay valid for this long after it.
    LastKnownFor(Duration),
    /// What the kernel cannot judge passes unjudged.
    Open,
}

impl fmt::Display for FailMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::LastKnownFor(time) => write!(f, "last-known-for {}s", time.as_secs()),
            Self::Open => f.write_str("open"),
        }
    }
}

/// What becomes of connections that are older than their unit's first enforcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdoptExisting {
    /// They go on, unjudged: nobody's identity was asked when they began.
    #[default]
    Allow,
    /// They are dropped.
    Drop,
}

/// Where handshakes of identities that know each other are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPath {
    /// In the kernel.
    #[default]
    On,
    /// In the agent, every one of them.
    Off,
}

/// How a unit is enforced, beside its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitSettings {
    /// How its TCP connections are judged.
    pub tcp: PuSettings,
    /// What becomes of everything else.
    pub other_protocols: OtherProtocols,
    /// Where known identities are judged.
    pub fast_path: FastPath,
    /// What happens while no agent answers.
    pub fail_mode: FailMode,
    /// What happens to connections that are there already.
    pub adopt_existing: AdoptExisting,
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

    /// Whether what needs the agent passes unjudged while none answers: a unit that is only observed loses nothing.
    #[must_use]
    pub fn fails_open(&self) -> bool {
        self.policy.mode() != Mode::Enforce || self.settings.fail_mode == FailMode::Open
    }

    /// Whether packets of other protocols than TCP are judged.
    #[must_use]
    pub fn judges_other_protocols(&self) -> bool {
        trireme_datapath::judges_other_protocols(&self.policy, self.settings.other_protocols.into())
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
