//! The TAP header: what an enforcer puts into the payload of a handshake segment.
//!
//! Header layout, network byte order: magic and version 4 B | kind 1 B | flags 1 B | payload
//! length 2 B | token id 16 B | nonce 16 B | MAC 16 B | body 20 B | two 16-bit values; then the
//! token and the credential (certificate or key token).
//!
//! Source: spec/tap.md.

use std::net::IpAddr;

use thiserror::Error;
use trireme_identity::Protocol;

use crate::bytes::{array, be16};
use crate::ip::Family;

mod codec;

/// The first four bytes: "TAP" and the version.
pub const MAGIC: [u8; 4] = [0x54, 0x41, 0x50, VERSION];

/// The protocol version.
pub const VERSION: u8 = 1;

/// Length of the header in front of token and credential.
pub const HEADER_LEN: usize = 80;

/// What a TAP message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Kind 1: the initiator's identity.
    Syn,
    /// Kind 2: the responder's identity and proof.
    SynAck,
    /// Kind 3: the initiator's proof.
    Ack,
    /// Kind 4: a refusal, for the peer's agent.
    Refusal,
    /// Kind 5: a request for the token behind an unknown id.
    TokenRequest,
}

impl Kind {
    /// Returns the kind's code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Syn => 1,
            Self::SynAck => 2,
            Self::Ack => 3,
            Self::Refusal => 4,
            Self::TokenRequest => 5,
        }
    }
}

/// The flag byte of a TAP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A token is attached.
    pub const TOKEN: Self = Self(0x01);
    /// The MAC field holds a MAC.
    pub const MAC: Self = Self(0x02);

    /// Returns the flags of a byte, or `None` if a bit without meaning is set.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !(Self::TOKEN.0 | Self::MAC.0) == 0 { Some(Self(bits)) } else { None }
    }

    /// Returns the byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The responder's own end, which translation may hide from the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attested {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port, never zero.
    pub port: u16,
    /// The address, a single host's.
    pub addr: IpAddr,
}

/// The part of a header that depends on its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Kind 1.
    Syn {
        /// Address family of the flow at the initiator.
        family: Family,
        /// TCP or UDP.
        protocol: Protocol,
        /// Length of the attached token.
        token_len: u16,
        /// Length of the attached credential.
        credential_len: u16,
    },
    /// Kind 2.
    SynAck {
        /// The responder's own end.
        endpoint: Attested,
        /// Length of the attached token.
        token_len: u16,
        /// Length of the attached credential.
        credential_len: u16,
    },
    /// Kind 3.
    Ack {
        /// The receiver's nonce.
        echo: [u8; 16],
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// Kind 4.
    Refusal {
        /// The initiator's nonce.
        echo: [u8; 16],
        /// TCP or UDP.
        protocol: Protocol,
        /// Reason code; zero without a MAC.
        reason: u16,
        /// Number of the rule that refused; zero without a MAC.
        rule: u16,
    },
    /// Kind 5.
    TokenRequest {
        /// The initiator's nonce; over UDP zero, if it is not known: the initiator is to begin.
        echo: [u8; 16],
        /// TCP or UDP.
        protocol: Protocol,
    },
}

/// A decoded TAP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Flags.
    pub flags: Flags,
    /// Id of the sender's token.
    pub token_id: [u8; 16],
    /// The sender's nonce.
    pub nonce: [u8; 16],
    /// MAC, a stateless cookie (kinds 1 and 5 without [`Flags::MAC`]), or zero.
    pub mac: [u8; 16],
    /// The rest.
    pub body: Body,
}

impl Header {
    /// Parses a whole segment payload.
    ///
    /// # Errors
    /// One [`TapError`] per wrong field; [`TapError::NotTap`] if the magic is absent.
    pub fn parse(payload: &[u8]) -> Result<Self, TapError> {
        codec::parse(payload)
    }

    /// Encodes header, token and credential into a segment payload.
    ///
    /// # Errors
    /// The error that [`Header::parse`] would find in the result.
    pub fn encode(&self, token: &[u8], credential: &[u8]) -> Result<Vec<u8>, TapError> {
        codec::encode(self, token, credential)
    }

    /// Returns the 80 header bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        codec::header_bytes(self)
    }

    /// Returns the header bytes that the MAC covers: 0..40 and 56..80.
    #[must_use]
    pub fn mac_input(&self) -> ([u8; 40], [u8; 24]) {
        codec::mac_input(&self.to_bytes())
    }

    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Syn { .. } => Kind::Syn,
            Body::SynAck { .. } => Kind::SynAck,
            Body::Ack { .. } => Kind::Ack,
            Body::Refusal { .. } => Kind::Refusal,
            Body::TokenRequest { .. } => Kind::TokenRequest,
        }
    }

    /// Returns the protocol of the flow that the message is about.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self.body {
            Body::SynAck { endpoint, .. } => endpoint.protocol,
            Body::Syn { protocol, .. }
            | Body::Ack { protocol, .. }
            | Body::Refusal { protocol, .. }
            | Body::TokenRequest { protocol, .. } => protocol,
        }
    }

    /// Returns whether the MAC field holds a MAC.
    #[must_use]
    pub const fn has_mac(&self) -> bool {
        self.flags.contains(Flags::MAC)
    }

    /// Returns the token in the payload that this header was parsed from; empty if none.
    #[must_use]
    pub fn token<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        let (token_len, _) = self.attachments();
        payload.get(HEADER_LEN..HEADER_LEN + token_len).unwrap_or_default()
    }

    /// Returns the credential in the payload that this header was parsed from; empty if none.
    #[must_use]
    pub fn credential<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        let (token_len, credential_len) = self.attachments();
        let start = HEADER_LEN + token_len;
        payload.get(start..start + credential_len).unwrap_or_default()
    }

    fn attachments(&self) -> (usize, usize) {
        match self.body {
            Body::Syn { token_len, credential_len, .. } | Body::SynAck { token_len, credential_len, .. } => {
                (usize::from(token_len), usize::from(credential_len))
            }
            Body::Ack { .. } | Body::Refusal { .. } | Body::TokenRequest { .. } => (0, 0),
        }
    }
}

/// Returns whether a payload claims to be TAP of any version.
#[must_use]
pub fn is_tap(payload: &[u8]) -> bool {
    payload.first_chunk::<3>() == MAGIC.first_chunk::<3>()
}

/// Returns the sender's nonce of a payload that claims to be TAP, whatever its version and the
/// rest of it, so that a token request can echo it.
#[must_use]
pub fn peek_nonce(payload: &[u8]) -> Option<[u8; 16]> {
    is_tap(payload).then(|| array(payload, codec::NONCE_AT))?
}

/// Returns the kind code of a payload with the right magic, without a look at the rest.
#[must_use]
pub fn peek_kind(payload: &[u8]) -> Option<u8> {
    payload.starts_with(&MAGIC).then(|| payload.get(codec::KIND_AT).copied())?
}

/// Why a payload is no TAP message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TapError {
    /// The magic is absent: this is no TAP at all.
    #[error("payload is not TAP")]
    NotTap,
    /// TAP of another version.
    #[error("TAP version {0} is unknown")]
    UnknownVersion(u8),
    /// Shorter than a header.
    #[error("TAP header is truncated")]
    Truncated,
    /// A kind without meaning.
    #[error("TAP kind {0} is unknown")]
    UnknownKind(u8),
    /// A flag without meaning, or one that the kind does not allow.
    #[error("TAP flags {0:#04x} are not allowed")]
    Flags(u8),
    /// The length field, the attachments and the payload disagree.
    #[error("TAP lengths disagree")]
    Length,
    /// The token flag and the token length disagree, or a credential stands without a token.
    #[error("TAP attachments disagree with the flags")]
    Attachment,
    /// An address family other than 4 and 6.
    #[error("TAP address family {0} is unknown")]
    Family(u8),
    /// A protocol other than TCP and UDP.
    #[error("TAP protocol {0} is not allowed")]
    Protocol(u8),
    /// The attested port is zero.
    #[error("TAP port is zero")]
    PortZero,
    /// The attested address is not a host's.
    #[error("TAP address is not a host address")]
    Address,
    /// Bytes that must be zero are not.
    #[error("TAP padding is not zero")]
    Padding,
    /// A MAC field without the flag, where no cookie may stand.
    #[error("TAP MAC field is set without its flag")]
    Mac,
}

impl TapError {
    /// Returns the stable name for counters, records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTap => "not-tap",
            Self::UnknownVersion(_) => "tap-unknown-version",
            Self::Truncated => "tap-truncated",
            Self::UnknownKind(_) => "tap-unknown-kind",
            Self::Flags(_) => "tap-bad-flags",
            Self::Length => "tap-bad-length",
            Self::Attachment => "tap-bad-attachment",
            Self::Family(_) => "tap-bad-family",
            Self::Protocol(_) => "tap-bad-protocol",
            Self::PortZero => "tap-zero-port",
            Self::Address => "tap-bad-address",
            Self::Padding => "tap-bad-padding",
            Self::Mac => "tap-stray-mac",
        }
    }
}

fn length_field(payload: &[u8]) -> Option<usize> {
    be16(payload, codec::LENGTH_AT).map(usize::from)
}
