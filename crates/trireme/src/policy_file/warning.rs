//! What an operator could misread as protection.

use std::fmt;

use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};
use trireme_policy::{Action, Mode, Observe};

use super::document::{AddressRule, Document, Policy, Unselected};
use super::words::{Name, Network, Port};

/// A remark about a place in a policy file that is valid, and may not mean what its author thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub name: String,
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
    /// What to know about the place.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.name, self.line, self.column, self.message)
    }
}

pub(super) fn about(document: &Document, file: &str) -> Vec<Warning> {
    let mut warnings = Warnings { file, list: Vec::new() };
    match document.mode {
        Mode::Enforce => {}
        Mode::Observe => warnings.whole_file("mode is observe: verdicts are recorded and nothing is refused"),
        Mode::Off => warnings.whole_file("mode is off: nothing is judged and nothing is refused"),
    }
    if document.policies.is_empty() {
        warnings.whole_file(match document.default {
            Unselected::Allow => "there is no policy: everything is admitted",
            Unselected::Deny => "there is no policy and default is deny: everything is refused",
        });
    }
    for policy in &document.policies {
        warnings.about_policy(policy);
    }
    warnings.list
}

struct Warnings<'a> {
    file: &'a str,
    list: Vec<Warning>,
}

impl Warnings<'_> {
    fn whole_file(&mut self, message: &str) {
        self.list.push(Warning {
            name: self.file.to_owned(),
            line: 1,
            column: 1,
            message: message.to_owned(),
        });
    }

    fn at(&mut self, place: &Location, message: String) {
        let (line, column) = (place.line(), place.column());
        self.list.push(Warning { name: self.file.to_owned(), line, column, message });
    }

    fn about_policy(&mut self, policy: &Policy) {
        let Policy { name, subject: _, ingress, egress, network_acls, application_acls } = policy;
        let (place, label) = (&name.referenced, format!("policy {:?}", name.value.as_str()));
        let speaks =
            |tags: Option<usize>, acls: &Option<Vec<AddressRule>>| (tags, acls.as_ref().map(Vec::len));
        let directions = [
            ("ingress", "network_acls", speaks(ingress.as_ref().map(Vec::len), network_acls)),
            ("egress", "application_acls", speaks(egress.as_ref().map(Vec::len), application_acls)),
        ];
        if directions.iter().all(|(_, _, rules)| *rules == (None, None)) {
            self.at(place, format!("{label} says nothing about any direction and has no effect"));
        }
        for (direction, acls, rules) in directions {
            match rules {
                (None, Some(1..)) => self.at(
                    place,
                    format!("{label} has {acls} and no {direction}: it admits no peer with an identity"),
                ),
                (Some(0), None | Some(0)) | (None, Some(0)) => {
                    self.at(place, format!("{label} is empty for {direction}: by itself it admits nothing"));
                }
                (None, None) | (Some(_), _) => {}
            }
        }
        for rule in ingress.iter().flatten() {
            self.about_rule(
                &label,
                rule.name.as_ref(),
                (&rule.from.referenced, rule.observe),
                rule.ports.as_deref(),
            );
            self.about_nobody(&label, "from", &rule.from);
        }
        for rule in egress.iter().flatten() {
            self.about_rule(
                &label,
                rule.name.as_ref(),
                (&rule.to.referenced, rule.observe),
                rule.ports.as_deref(),
            );
            self.about_nobody(&label, "to", &rule.to);
        }
        for rule in network_acls.iter().chain(application_acls).flatten() {
            let place = &rule.networks.referenced;
            self.about_rule(&label, rule.name.as_ref(), (place, rule.observe), rule.ports.as_deref());
            self.about_nobody(&label, "networks", &rule.networks);
            for network in rule.networks.value.iter().chain(rule.except.iter().map(|except| &except.value)) {
                self.about_network(&label, place, network);
            }
            let everywhere = |network: &Network| network.net().prefix_len() == 0;
            if rule.action == Action::Accept && rule.networks.value.iter().any(everywhere) {
                self.at(
                    place,
                    format!(
                        "{label} admits peers without an identity from every address: identity can be avoided"
                    ),
                );
            }
        }
    }

    fn about_rule(
        &mut self,
        policy: &str,
        name: Option<&Name>,
        at: (&Location, Observe),
        ports: Option<&[Port]>,
    ) {
        let (place, observe) = at;
        let label =
            name.map_or_else(|| policy.to_owned(), |name| format!("{policy}, rule {:?}", name.as_str()));
        match observe {
            Observe::None => {}
            Observe::Continue => {
                self.at(place, format!("{label} only observes: it reports and decides nothing"))
            }
            Observe::Apply => {
                self.at(place, format!("{label} only observes: it acts where no other rule does"))
            }
        }
        if ports.is_some_and(<[Port]>::is_empty) {
            self.at(place, format!("{label} has an empty list of ports and matches nothing"));
        }
    }

    fn about_network(&mut self, policy: &str, place: &Location, network: &Network) {
        if let Some(written) = network.sloppy() {
            self.at(
                place,
                format!(
                    "{policy}, {written} has bits behind its prefix and is read as {}: write that for the network or {} for the address",
                    network.net(),
                    IpNet::from(written.addr())
                ),
            );
        }
    }

    fn about_nobody<T>(&mut self, policy: &str, field: &str, list: &Spanned<Vec<T>>) {
        if list.value.is_empty() {
            self.at(
                &list.referenced,
                format!("{policy} has a rule with an empty {field} list, which matches nothing"),
            );
        }
    }
}
