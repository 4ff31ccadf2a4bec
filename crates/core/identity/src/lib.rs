//! Who a workload is: tags, processing-unit ids and the facts a monitor learned about it.
//!
//! Start with [`TagSet`] (the signed identity) and [`PuId`] (its name on the wire).
//! This crate holds plain data only: no I/O, no clock, no cryptography, no policy.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

mod id;
mod runtime;
mod tag;
pub mod time;

pub use id::{IdError, NodeId, PuId};
pub use runtime::{PuKind, PuRuntime};
pub use tag::{Tag, TagError, TagSet};

use serde::{Deserialize, Serialize};

/// The direction of a connection as its processing unit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The peer opened the connection (receiver rules).
    Ingress,
    /// The processing unit opened the connection (transmitter rules).
    Egress,
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Transmission Control Protocol (RFC 9293).
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol (RFC 768).
    pub const UDP: Self = Self(17);
    /// Internet Control Message Protocol (RFC 792).
    pub const ICMP: Self = Self(1);
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// Stream Control Transmission Protocol (RFC 9260).
    pub const SCTP: Self = Self(132);
    /// Internet Group Management Protocol (RFC 3376).
    pub const IGMP: Self = Self(2);
    /// Datagram Congestion Control Protocol (RFC 4340).
    pub const DCCP: Self = Self(33);
    /// Lightweight User Datagram Protocol (RFC 3828).
    pub const UDP_LITE: Self = Self(136);

    /// Whether its header begins with a source and a destination port.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP | Self::DCCP | Self::UDP_LITE)
    }

    /// Whether it is ICMP or ICMPv6.
    #[must_use]
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMP => f.write_str("icmp"),
            Self::ICMPV6 => f.write_str("icmpv6"),
            Self::SCTP => f.write_str("sctp"),
            Self::IGMP => f.write_str("igmp"),
            Self::DCCP => f.write_str("dccp"),
            Self::UDP_LITE => f.write_str("udplite"),
            Self(number) => write!(f, "{number}"),
        }
    }
}
