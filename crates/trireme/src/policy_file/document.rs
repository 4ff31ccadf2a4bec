//! The fields of a policy file.

use serde::Deserialize;
use serde_saphyr::Spanned;
use trireme_identity::{Protocol, TagSet};
use trireme_policy::{Action, Mode, Observe};

use super::PolicyFileError;
use super::condition::Conditions;
use super::words::{Key, Name, Network, Port, given};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(rename = "apiVersion")]
    pub(super) _api_version: ApiVersion,
    #[serde(default)]
    pub(super) default: Unselected,
    #[serde(default)]
    pub(super) mode: Mode,
    #[serde(default)]
    pub(super) complete_keys: Vec<Key>,
    pub(super) policies: Vec<Policy>,
}

#[derive(Debug, Deserialize)]
pub(super) enum ApiVersion {
    #[serde(rename = "trireme/v1")]
    V1,
}

/// What holds in a direction about which no policy speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unselected {
    #[default]
    Allow,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) name: Spanned<Name>,
    pub(super) subject: Conditions,
    #[serde(default, deserialize_with = "given")]
    pub(super) ingress: Option<Vec<IngressRule>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) egress: Option<Vec<EgressRule>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) network_acls: Option<Vec<AddressRule>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) application_acls: Option<Vec<AddressRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IngressRule {
    #[serde(default, deserialize_with = "given")]
    pub(super) name: Option<Name>,
    pub(super) from: Spanned<Vec<Conditions>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) ports: Option<Vec<Port>>,
    #[serde(default = "accept")]
    pub(super) action: Action,
    #[serde(default)]
    pub(super) observe: Observe,
    #[serde(default)]
    pub(super) priority: u32,
    #[serde(default)]
    pub(super) log: bool,
    #[serde(default)]
    pub(super) encrypt: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EgressRule {
    #[serde(default, deserialize_with = "given")]
    pub(super) name: Option<Name>,
    pub(super) to: Spanned<Vec<Conditions>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) ports: Option<Vec<Port>>,
    #[serde(default = "accept")]
    pub(super) action: Action,
    #[serde(default)]
    pub(super) observe: Observe,
    #[serde(default)]
    pub(super) priority: u32,
    #[serde(default)]
    pub(super) log: bool,
    #[serde(default)]
    pub(super) encrypt: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressRule {
    #[serde(default, deserialize_with = "given")]
    pub(super) name: Option<Name>,
    pub(super) networks: Spanned<Vec<Network>>,
    #[serde(default)]
    pub(super) except: Vec<Spanned<Network>>,
    #[serde(default, deserialize_with = "given")]
    pub(super) ports: Option<Vec<Port>>,
    #[serde(default = "accept")]
    pub(super) action: Action,
    #[serde(default)]
    pub(super) observe: Observe,
    #[serde(default)]
    pub(super) priority: u32,
    #[serde(default)]
    pub(super) any_peer: bool,
    #[serde(default)]
    pub(super) log: bool,
}

impl Document {
    /// The policies whose subject has these tags.
    pub(super) fn selecting<'a>(&'a self, tags: &'a TagSet) -> impl Iterator<Item = &'a Policy> {
        self.policies.iter().filter(|policy| policy.subject.selector().matches(tags))
    }

    /// Every address rule.
    pub(super) fn address_rules(&self) -> impl Iterator<Item = &AddressRule> {
        self.policies
            .iter()
            .flat_map(|policy| policy.network_acls.iter().chain(&policy.application_acls))
            .flatten()
    }

    /// An exception takes something out of its rule's networks, or its author meant something else.
    pub(super) fn check_exceptions(&self, file: &str) -> Result<(), PolicyFileError> {
        let outside = self.address_rules().find_map(|rule| {
            let inside =
                |except: &Network| rule.networks.value.iter().any(|net| net.net().contains(&except.net()));
            rule.except.iter().find(|except| !inside(&except.value))
        });
        match outside {
            None => Ok(()),
            Some(except) => Err(PolicyFileError::Wrong {
                name: file.to_owned(),
                line: except.referenced.line(),
                column: except.referenced.column(),
                message: format!(
                    "{} lies in none of the rule's networks: remove it, or write it as a rule that rejects",
                    except.value.net()
                ),
            }),
        }
    }

    /// ICMP belongs to IPv4 and ICMPv6 to IPv6: a rule about the one in networks of the other matches nothing.
    pub(super) fn check_families(&self, file: &str) -> Result<(), PolicyFileError> {
        let contradicts = |rule: &&AddressRule| {
            let (nets, Some(ports)) = (&rule.networks.value, &rule.ports) else { return false };
            let all = |protocol: Protocol| {
                !ports.is_empty() && ports.iter().all(|port| port.0.protocol() == protocol)
            };
            let of_v4 = |net: &Network| net.net().addr().is_ipv4();
            !nets.is_empty()
                && (all(Protocol::ICMPV6) && nets.iter().all(of_v4)
                    || all(Protocol::ICMP) && !nets.iter().any(of_v4))
        };
        match self.address_rules().find(contradicts) {
            None => Ok(()),
            Some(AddressRule { networks, .. }) => Err(PolicyFileError::Wrong {
                name: file.to_owned(),
                line: networks.referenced.line(),
                column: networks.referenced.column(),
                message:
                    "icmp belongs to IPv4 networks and icmpv6 to IPv6 networks: this rule can match nothing"
                        .to_owned(),
            }),
        }
    }

    /// A name stands for one policy: reports and refusals know policies by nothing else.
    pub(super) fn check_names(&self, file: &str) -> Result<(), PolicyFileError> {
        let mut seen = std::collections::BTreeSet::new();
        match self.policies.iter().find(|policy| !seen.insert(policy.name.value.as_str())) {
            None => Ok(()),
            Some(policy) => Err(PolicyFileError::Wrong {
                name: file.to_owned(),
                line: policy.name.referenced.line(),
                column: policy.name.referenced.column(),
                message: format!(
                    "the policy name {:?} is used twice: give each policy its own",
                    policy.name.value.as_str()
                ),
            }),
        }
    }
}

const fn accept() -> Action {
    Action::Accept
}
