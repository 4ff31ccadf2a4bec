//! Where identities may be sent.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use trireme::TargetNetworks;

/// Networks whose hosts may see tokens, minus exclusions.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    pub(crate) targets: Vec<Cidr>,
    pub(crate) exclude: Vec<Cidr>,
}

/// The library's: private, shared, unique local, link-local and loopback addresses.
impl Default for Network {
    fn default() -> Self {
        let TargetNetworks { include, exclude } = TargetNetworks::default();
        let texts = |nets: Vec<IpNet>| nets.into_iter().map(Cidr).collect();
        Self { targets: texts(include), exclude: texts(exclude) }
    }
}

/// A network in CIDR form whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cidr(pub(crate) IpNet);

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let net: IpNet = text.parse().map_err(|_| {
            format!("a network is written address/length, for example 10.0.0.0/8, not {text:?}")
        })?;
        if net.trunc() == net {
            return Ok(Self(net));
        }
        Err(format!("{net} has bits behind its length: write {}", net.trunc()))
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_target_is_a_network() {
        assert_eq!(Network::default().targets.len(), 9);
    }
}
