//! The dialects in which the kernel takes rules.

use std::fmt;
use std::str::FromStr;

use crate::{Capabilities, NetfilterError};

/// How rules reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackEnd {
    /// A table of our own, written by `nft`.
    Nft,
    /// Chains in the tables of `iptables-nft` and `ip6tables-nft`.
    IptablesNft,
    /// Chains in the tables of `iptables-legacy` and `ip6tables-legacy`.
    IptablesLegacy,
}

impl BackEnd {
    /// All of them, the preferred first.
    pub const ALL: [Self; 3] = [Self::Nft, Self::IptablesNft, Self::IptablesLegacy];

    /// Finds the back end for the calling thread's namespace; [`Capabilities`] does the same for many namespaces and
    /// tries the kernel once.
    ///
    /// # Errors
    /// As [`Capabilities::choose`].
    pub fn detect() -> Result<Self, NetfilterError> {
        Capabilities::default().choose()
    }
}

impl BackEnd {
    /// How its programs write a mark.
    pub(crate) fn spelling(self) -> fn(u32) -> String {
        match self {
            Self::Nft => |mark| format!("{mark:#010x}"),
            Self::IptablesNft | Self::IptablesLegacy => |mark| format!("{mark:#x}"),
        }
    }
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

impl FromStr for BackEnd {
    type Err = NetfilterError;

    fn from_str(text: &str) -> Result<Self, NetfilterError> {
        let named = Self::ALL.into_iter().find(|back_end| back_end.to_string() == text);
        named.ok_or_else(|| NetfilterError::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_refused() {
        for back_end in BackEnd::ALL {
            assert_eq!(back_end.to_string().parse::<BackEnd>().unwrap(), back_end);
        }
        assert!(matches!("iptables".parse::<BackEnd>(), Err(NetfilterError::Name(_))));
    }
}
