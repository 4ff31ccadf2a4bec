//! Where identities may be sent.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Networks whose hosts may see tokens, minus exclusions.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    pub(crate) targets: Vec<Cidr>,
    pub(crate) exclude: Vec<Cidr>,
}

/// RFC 1918, RFC 6598, ULA, link-local and loopback.
const DEFAULT_TARGETS: [&str; 9] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];

impl Default for Network {
    fn default() -> Self {
        let targets = DEFAULT_TARGETS.iter().filter_map(|text| text.parse().ok()).map(Cidr).collect();
        Self { targets, exclude: Vec::new() }
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
        assert_eq!(Network::default().targets.len(), DEFAULT_TARGETS.len());
    }
}
