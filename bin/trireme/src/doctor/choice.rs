//! Which data paths can be used, and which one an agent would take.

use trireme::datapath::bpf;
use trireme::datapath::nfqueue::{self, RuleBackEnd};

use super::finding::Finding;
use crate::agent::choice::{Both, Chosen, Held, choose};
use crate::config::{DatapathKind, RulesKind};

/// What process and kernel have, by data path.
#[derive(Clone, Debug)]
pub(super) struct Abilities {
    /// Capabilities; an error names those that are missing.
    pub(super) bpf_privileges: Result<(), String>,
    pub(super) queue_privileges: Result<(), String>,
    /// Whether a program can be loaded, privileges included.
    pub(super) bpf: Result<(), String>,
    /// Ways to write rules.
    pub(super) rules: Vec<(RuleBackEnd, Result<(), String>)>,
}

impl Abilities {
    /// Asks process and kernel; of ways to write rules, only for one that is configured.
    pub(super) fn probe(configured: RulesKind) -> Self {
        let text = |outcome: Result<(), trireme::DatapathError>| outcome.map_err(|error| error.to_string());
        let queue_privileges = text(nfqueue::privileges());
        // Without privileges each would only tell that there is no namespace to try it in.
        let mut rules = if queue_privileges.is_ok() { nfqueue::rule_back_ends() } else { Vec::new() };
        rules.retain(|(back_end, _)| match configured {
            RulesKind::Auto => true,
            RulesKind::Nft => *back_end == RuleBackEnd::Nft,
            RulesKind::IptablesNft => *back_end == RuleBackEnd::IptablesNft,
            RulesKind::IptablesLegacy => *back_end == RuleBackEnd::IptablesLegacy,
        });
        let bpf_privileges = text(bpf::privileges());
        Self { bpf_privileges, queue_privileges, bpf: text(bpf::probe()), rules }
    }

    fn queues(&self) -> Result<(), String> {
        self.queue_privileges.clone()?;
        if self.rules.iter().any(|(_, works)| works.is_ok()) {
            return Ok(());
        }
        Err("no way to write rules works".to_owned())
    }
}

/// What an agent would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Bpf(String),
    /// Why, and why not bpf.
    Nfqueue(String, Option<String>),
    /// It would not start: why, and the remedy.
    None(String, String),
}

/// Chooses as the agent does.
pub(super) fn judge(kind: DatapathKind, abilities: &Abilities, held: Held) -> Choice {
    let queues = |why: String, not_bpf: Option<String>| match abilities.queues() {
        Ok(()) => Choice::Nfqueue(why, not_bpf),
        Err(error) => {
            let bpf = not_bpf.map(|reason| format!("bpf cannot be used: {reason}; ")).unwrap_or_default();
            let remedy = match &abilities.queue_privileges {
                Ok(()) => {
                    "install what the findings about rules name, set datapath.rules = \"auto\", or use a kernel with BPF"
                }
                Err(_) => "run the agent as root, or grant it these capabilities",
            };
            Choice::None(format!("{bpf}nfqueue cannot be used: {}", bare(&error)), remedy.to_owned())
        }
    };
    match choose(kind, held, || abilities.bpf.as_ref().copied()) {
        Err(Both { units, other }) => Choice::None(
            format!("{units} units are still enforced by {other}"),
            format!("run `trireme agent --cleanup` with datapath.kind = \"{other}\" first, or go on with it"),
        ),
        Ok(Chosen::Configured(DatapathKind::Nfqueue)) => queues("nfqueue, as configured".to_owned(), None),
        Ok(Chosen::Configured(DatapathKind::Bpf | DatapathKind::Auto)) => match &abilities.bpf {
            Ok(()) => Choice::Bpf("bpf, as configured".to_owned()),
            Err(error) => Choice::None(
                format!("bpf is configured and cannot be used: {}", bare(error)),
                "set datapath.kind = \"auto\" or \"nfqueue\", or give it what is missing".to_owned(),
            ),
        },
        Ok(Chosen::HoldsUnits(units)) => {
            queues(format!("auto chooses nfqueue because it holds {units} units from an earlier run"), None)
        }
        Ok(Chosen::BpfWorks) => {
            Choice::Bpf("auto chooses bpf because the kernel has what it needs".to_owned())
        }
        Ok(Chosen::NoBpf(error)) => queues(
            format!("auto chooses nfqueue because bpf cannot be used: {}", bare(error)),
            Some(bare(error).to_owned()),
        ),
    }
}

/// What is missing, without the remedy that stands apart.
fn bare(error: &str) -> &str {
    error.split_once(": run the agent").map_or(error, |(missing, _)| missing)
}

impl Choice {
    /// The data path, if there is one.
    pub(super) fn kind(&self) -> Option<DatapathKind> {
        match self {
            Self::Bpf(_) => Some(DatapathKind::Bpf),
            Self::Nfqueue(..) => Some(DatapathKind::Nfqueue),
            Self::None(..) => None,
        }
    }

    pub(super) fn finding(&self) -> Finding {
        const CHECK: &str = "data path";
        match self {
            Self::Bpf(why) | Self::Nfqueue(why, None) => Finding::ok(CHECK, why.as_str()),
            Self::Nfqueue(why, Some(_)) => Finding::note(
                CHECK,
                why.as_str(),
                "give the agent what bpf needs; without it, known identities connect only while an agent runs",
            ),
            Self::None(why, remedy) => Finding::problem(CHECK, why.as_str(), remedy.as_str()),
        }
    }
}

/// Which data paths the capabilities of the process are enough for.
pub(super) fn capabilities(kind: DatapathKind, abilities: &Abilities) -> Vec<Finding> {
    [
        ("bpf", &abilities.bpf_privileges, kind == DatapathKind::Bpf),
        ("nfqueue", &abilities.queue_privileges, kind == DatapathKind::Nfqueue),
    ]
    .into_iter()
    .map(|(name, held, wanted)| match held {
        Ok(()) => Finding::ok("capabilities", format!("enough for the {name} data path")),
        Err(error) => {
            let (found, remedy) = error
                .split_once(": ")
                .unwrap_or((error, "run the agent as root, or grant it these capabilities"));
            // What neither has is told as a problem by the choice.
            let finding = if wanted { Finding::problem } else { Finding::note };
            finding("capabilities", found.to_owned(), remedy.to_owned())
        }
    })
    .collect()
}

#[cfg(test)]
mod tests;
