//! What an operator could misread as protection, in whole sentences.

use ipnet::IpNet;
use trireme_datapath::{Authorize, TargetNetworks};
use trireme_policy::{Mode, Ruleset};

use crate::{Enforcement, FailMode, OtherProtocols, SecretsKind};

/// A sentence for the log and for status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// A stable name.
    pub code: &'static str,
    /// The whole sentence.
    pub text: String,
}

impl Warning {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Everything worth saying about this combination of secrets and units, each sentence once.
pub(crate) fn about<'a>(
    secrets: SecretsKind,
    units: impl IntoIterator<Item = &'a Enforcement>,
    from_policy: &[String],
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if secrets == SecretsKind::Psk {
        warnings.push(Warning::new(
            "psk",
            "a pre-shared key is in use: whoever holds it can claim any identity; use pki outside of tests",
        ));
    }
    let mut units = units.into_iter().peekable();
    if units.peek().is_none() {
        warnings.push(Warning::new("no-units", "there is no processing unit: nothing is enforced"));
    }
    for unit in units {
        about_unit(unit, &mut warnings);
    }
    warnings.extend(from_policy.iter().map(|text| Warning::new("policy", text.clone())));
    warnings.sort();
    warnings.dedup();
    warnings
}

fn about_unit(unit: &Enforcement, warnings: &mut Vec<Warning>) {
    let id = unit.id();
    let policy = unit.policy.source();
    let mut say = |code, text: String| warnings.push(Warning::new(code, text));
    match policy.mode {
        Mode::Enforce => {}
        Mode::Observe => {
            say(
                "observe-mode",
                format!("{id} is in observe mode: verdicts are recorded, nothing is refused"),
            );
        }
        Mode::Off => say("mode-off", format!("{id} is in mode off: nothing is judged or refused")),
    }
    match (&policy.ingress, &policy.egress) {
        (Ruleset::Unrestricted, Ruleset::Unrestricted) => {
            say("empty-policy", format!("no rule speaks about {id}: it is unrestricted in both directions"))
        }
        (Ruleset::Rules(rules), Ruleset::Rules(others)) if rules.is_empty() && others.is_empty() => {
            say("nothing-allowed", format!("the policy of {id} allows no identity in either direction"))
        }
        (Ruleset::Rules(_) | Ruleset::Unrestricted, Ruleset::Rules(_) | Ruleset::Unrestricted) => {}
    }
    match unit.settings.tcp.authorize {
        Authorize::Mutual => {}
        Authorize::ReceiverOnly => say(
            "receiver-only",
            format!("{id} authorizes as receiver only: its egress rules are not applied"),
        ),
    }
    match unit.settings.other_protocols {
        OtherProtocols::Deny => {}
        OtherProtocols::Allow => say(
            "other-protocols",
            format!(
                "{id} may send and receive anything that is not TCP: udp, icmp and the rest pass unjudged"
            ),
        ),
    }
    if unit.settings.fail_mode == FailMode::Open {
        say(
            "fail-open",
            format!("{id} fails open: while no agent answers, what only it could judge passes unjudged"),
        );
    }
    if reaches_everywhere(&unit.settings.tcp.target_networks) {
        say(
            "targets-everywhere",
            format!(
                "the target networks of {id} cover the whole internet: its tags are sent to anyone it calls"
            ),
        );
    }
}

fn reaches_everywhere(targets: &TargetNetworks) -> bool {
    targets.exclude.is_empty() && targets.include.iter().any(|net: &IpNet| net.prefix_len() == 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trireme_identity::TagSet;
    use trireme_policy::{CompiledPolicy, PuPolicy};

    use super::*;
    use crate::{Edge, Monitor, StaticMonitor, StaticPu, UnitSettings};

    async fn unit(policy: PuPolicy, settings: UnitSettings) -> Enforcement {
        let unit = StaticPu {
            id: "web".parse().unwrap(),
            tags: TagSet::parse(["role=web"]).unwrap(),
            edge: Edge::Interface("veth0".to_owned()),
        };
        let pu = StaticMonitor::new(vec![unit]).existing().await.unwrap().remove(0);
        Enforcement {
            identity: pu.runtime.tags.clone(),
            annotations: TagSet::new(),
            policy: Arc::new(CompiledPolicy::compile(&policy).unwrap()),
            settings,
            pu,
        }
    }

    fn codes(warnings: &[Warning]) -> Vec<&str> {
        warnings.iter().map(|warning| warning.code).collect()
    }

    #[tokio::test]
    async fn everything_that_could_be_misread_as_protection_has_a_warning() {
        let half = PuPolicy { ingress: Ruleset::Rules(Vec::new()), ..PuPolicy::unrestricted() };
        let quiet = unit(half.clone(), UnitSettings::default()).await;
        assert_eq!(codes(&about(SecretsKind::Certificate, [&quiet], &[])), [""; 0]);

        let mut open = UnitSettings::default();
        open.tcp.authorize = Authorize::ReceiverOnly;
        open.tcp.target_networks.include.push("0.0.0.0/0".parse().unwrap());
        open.other_protocols = OtherProtocols::Allow;
        open.fail_mode = FailMode::Open;
        let observed = PuPolicy { mode: Mode::Observe, ..half.clone() };
        let loud = unit(observed, open).await;
        assert_eq!(
            codes(&about(SecretsKind::Psk, [&loud], &["said by the policy".to_owned()])),
            [
                "fail-open",
                "observe-mode",
                "other-protocols",
                "policy",
                "psk",
                "receiver-only",
                "targets-everywhere"
            ]
        );

        let off =
            unit(PuPolicy { mode: Mode::Off, ..PuPolicy::unrestricted() }, UnitSettings::default()).await;
        assert_eq!(codes(&about(SecretsKind::KeyToken, [&off], &[])), ["empty-policy", "mode-off"]);
        let shut = unit(PuPolicy::deny_all(), UnitSettings::default()).await;
        assert_eq!(codes(&about(SecretsKind::KeyToken, [&shut, &shut], &[])), ["nothing-allowed"]);
        assert_eq!(codes(&about(SecretsKind::KeyToken, [], &[])), ["no-units"]);
    }
}
