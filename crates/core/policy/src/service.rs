//! Protocols with destination ports, or ICMP types with codes.

use std::fmt;
use std::str::FromStr;

use trireme_identity::Protocol;

/// Why a text is not a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The protocol is missing or unknown.
    #[error(
        "{0:?} names no protocol: write tcp, udp, sctp, dccp, udplite, icmp, icmpv6, igmp or a number from 0 to 255, as in \"80/tcp\""
    )]
    Protocol(String),
    /// The port is not a number from 0 to 65535.
    #[error("{0:?} is not a port from 0 to 65535, as in \"80/tcp\" or \"8000-8100/tcp\"")]
    Port(String),
    /// The first port is behind the last one.
    #[error("the port range {0}-{1} is empty: write the lower port first")]
    EmptyRange(u16, u16),
    /// The protocol has no ports.
    #[error("{0} has no ports: write {0} alone")]
    NoPorts(Protocol),
    /// The ICMP type or code is not a number from 0 to 255.
    #[error("{0:?} is not an ICMP type or code from 0 to 255, as in \"icmp/8\" or \"icmp/3/4\"")]
    Icmp(String),
}

/// One protocol with a range of destination ports; for ICMP the "port" is `type * 256 + code`.
///
/// Written `80/tcp`, `8000-8100/tcp`, `tcp`, `icmp`, `icmp/8` (type) or `icmp/3/4` (type and code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    protocol: Protocol,
    first: u16,
    last: u16,
}

impl Service {
    /// Every port of a protocol.
    #[must_use]
    pub const fn any_port(protocol: Protocol) -> Self {
        Self { protocol, first: 0, last: u16::MAX }
    }

    /// One TCP port.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self { protocol: Protocol::TCP, first: port, last: port }
    }

    /// One UDP port.
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self { protocol: Protocol::UDP, first: port, last: port }
    }

    /// Ports `first` to `last`, both included.
    ///
    /// # Errors
    /// [`ServiceError::EmptyRange`] if `first` is above `last`, [`ServiceError::NoPorts`] if the protocol has none.
    pub fn ports(protocol: Protocol, first: u16, last: u16) -> Result<Self, ServiceError> {
        if !protocol.has_ports() {
            return Err(ServiceError::NoPorts(protocol));
        }
        if first > last {
            return Err(ServiceError::EmptyRange(first, last));
        }
        Ok(Self { protocol, first, last })
    }

    /// One ICMP type, with one code or with all of them; `protocol` says which ICMP.
    ///
    /// # Errors
    /// [`ServiceError::Protocol`] if the protocol is neither ICMP nor ICMPv6.
    pub fn icmp(protocol: Protocol, kind: u8, code: Option<u8>) -> Result<Self, ServiceError> {
        if !protocol.is_icmp() {
            return Err(ServiceError::Protocol(protocol.to_string()));
        }
        let (low, high) = code.map_or((0, u8::MAX), |code| (code, code));
        Ok(Self { protocol, first: u16::from_be_bytes([kind, low]), last: u16::from_be_bytes([kind, high]) })
    }

    /// The protocol.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// Whether a connection to `port` over `protocol` is covered; for ICMP `port` is `type * 256 + code`.
    #[must_use]
    pub const fn contains(self, port: u16, protocol: Protocol) -> bool {
        self.protocol.0 == protocol.0 && self.first <= port && port <= self.last
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (head, name) = match parts.as_slice() {
            [name] => return protocol(name).map(Self::any_port),
            [name @ ("icmp" | "icmpv6"), kind] => return Self::icmp(protocol(name)?, octet(kind)?, None),
            [name @ ("icmp" | "icmpv6"), kind, code] => {
                return Self::icmp(protocol(name)?, octet(kind)?, Some(octet(code)?));
            }
            [ports, name] => (*ports, *name),
            _ => return Err(ServiceError::Port(text.to_owned())),
        };
        let (first, last) = head.split_once('-').unwrap_or((head, head));
        let (first, last) = (port(first)?, port(last)?);
        Self::ports(protocol(name)?, first, last)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol;
        if self.first == 0 && self.last == u16::MAX {
            return write!(f, "{protocol}");
        }
        if protocol.is_icmp() {
            let ([kind, code], [_, last]) = (self.first.to_be_bytes(), self.last.to_be_bytes());
            return if code == last {
                write!(f, "{protocol}/{kind}/{code}")
            } else {
                write!(f, "{protocol}/{kind}")
            };
        }
        if self.first == self.last {
            return write!(f, "{}/{protocol}", self.first);
        }
        write!(f, "{}-{}/{protocol}", self.first, self.last)
    }
}

/// What a rule is about, besides the peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Services {
    /// Every protocol and port.
    Any,
    /// Only these; an empty list is about nothing.
    Only(Vec<Service>),
}

impl Services {
    /// Whether a connection to `port` over `protocol` is covered; for ICMP `port` is `type * 256 + code`.
    #[must_use]
    pub fn contain(&self, port: u16, protocol: Protocol) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|service| service.contains(port, protocol)),
        }
    }

    /// Whether some port of `protocol` is covered.
    #[must_use]
    pub fn contain_protocol(&self, protocol: Protocol) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|service| service.protocol == protocol),
        }
    }
}

impl Services {
    /// Whether something other than `protocol` is covered.
    #[must_use]
    pub fn contain_beyond(&self, protocol: Protocol) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|service| service.protocol != protocol),
        }
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("every port"),
            Self::Only(list) => {
                let words: Vec<String> = list.iter().map(Service::to_string).collect();
                f.write_str(if words.is_empty() { "no port" } else { "" })?;
                f.write_str(&words.join(", "))
            }
        }
    }
}

fn protocol(text: &str) -> Result<Protocol, ServiceError> {
    match text {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "sctp" => Ok(Protocol::SCTP),
        "dccp" => Ok(Protocol::DCCP),
        "udplite" => Ok(Protocol::UDP_LITE),
        "igmp" => Ok(Protocol::IGMP),
        "icmp" => Ok(Protocol::ICMP),
        "icmpv6" => Ok(Protocol::ICMPV6),
        number => number.parse().map(Protocol).map_err(|_| ServiceError::Protocol(text.to_owned())),
    }
}

fn port(text: &str) -> Result<u16, ServiceError> {
    text.parse().map_err(|_| ServiceError::Port(text.to_owned()))
}

fn octet(text: &str) -> Result<u8, ServiceError> {
    text.parse().map_err(|_| ServiceError::Icmp(text.to_owned()))
}
