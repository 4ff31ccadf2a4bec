//! Enumerations and bits of the layouts.

/// Why a packet was handed to user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PuntReason {
    /// No entry in the connection table.
    Miss = 1,
    /// SYN or SYN-ACK, whatever the table says.
    Syn = 2,
    /// The entry was authorized under another policy epoch.
    StaleEpoch = 3,
    /// The proof of an established connection once more.
    ProofDuplicate = 4,
    /// A segment of an initiator whose responder has not been heard.
    Unconfirmed = 5,
    /// A fragment of a TCP packet.
    Fragment = 6,
    /// An ICMP or ICMPv6 error.
    IcmpError = 7,
    /// Neither ACK, RST nor SYN.
    OddFlags = 8,
    /// TCP whose lengths do not fit.
    Malformed = 9,
    /// A SYN whose sender is not known to the programs.
    Unknown = 10,
    /// A handshake of the programs that they cannot go on with; the record carries it.
    Handshake = 11,
    /// The peer has not been shown the unit's newest token yet.
    Renewal = 12,
    /// The connection table or the unit's quota of handshakes is full.
    TableFull = 13,
    /// A packet of another protocol than TCP.
    Other = 14,
}

impl PuntReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Miss,
        Self::Syn,
        Self::StaleEpoch,
        Self::ProofDuplicate,
        Self::Unconfirmed,
        Self::Fragment,
        Self::IcmpError,
        Self::OddFlags,
        Self::Malformed,
        Self::Unknown,
        Self::Handshake,
        Self::Renewal,
        Self::TableFull,
        Self::Other,
    ];

    /// Returns the reason with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// Returns the stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Syn => "syn",
            Self::StaleEpoch => "stale-epoch",
            Self::ProofDuplicate => "proof-duplicate",
            Self::Unconfirmed => "unconfirmed",
            Self::Fragment => "fragment",
            Self::IcmpError => "icmp-error",
            Self::OddFlags => "odd-flags",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Handshake => "handshake",
            Self::Renewal => "renewal",
            Self::TableFull => "table-full",
            Self::Other => "other",
        }
    }
}

/// What the programs count per PU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Counter {
    /// Packets from the PU handed to user space.
    PuntedFrom = 0,
    /// Packets to the PU handed to user space.
    PuntedTo = 1,
    /// Dropped: no room in the ring.
    RingFull = 2,
    /// Dropped: more punts than the PU's rate limit.
    RateLimited = 3,
    /// Dropped: VLAN-tagged.
    Vlan = 4,
    /// Dropped: neither IP nor ARP.
    NotIp = 5,
    /// Dropped: a protocol that the PU's setting denies.
    OtherProtocol = 6,
    /// Dropped: a router advertisement or redirect from a PU.
    RouterSpoof = 7,
    /// Dropped: a program stands on an interface that has no PU.
    NoOwner = 8,
    /// Dropped: larger than a punt record can carry.
    Oversize = 9,
    /// Dropped: headers that cannot be read.
    Truncated = 10,
    /// Passed: put back by user space.
    Reinjected = 11,
    /// Passed: a protocol that the PU's setting allows.
    OtherAllowed = 12,
    /// Dropped: a frame on the injector without its secret.
    Forged = 13,
    /// Passed: a SYN with the unit's identity put on by the programs.
    FastSynFrom = 14,
    /// Passed: a SYN authorized by the programs.
    FastSynTo = 15,
    /// Passed: a SYN-ACK with the unit's identity put on by the programs.
    FastSynAckFrom = 16,
    /// Passed: a SYN-ACK authenticated and authorized by the programs.
    FastSynAckTo = 17,
    /// Passed: an ACK with the proof put on by the programs.
    FastProofFrom = 18,
    /// Passed: an ACK whose proof the programs verified.
    FastProofTo = 19,
    /// Dropped: a SYN or SYN-ACK that a known verdict refuses.
    Refused = 20,
    /// Dropped: a packet of a live connection that is refused since a change.
    Cut = 21,
    /// Live connections that go on after a change, by a known verdict.
    Rejudged = 22,
    /// Dropped: the agent is away and its judgement is needed.
    AgentDown = 23,
    /// Passed unjudged: the agent is away and the unit's fail mode is open.
    FailedOpen = 24,
    /// Dropped: more SYNs of unknown senders than the limits of source or unit.
    UnknownLimited = 25,
    /// Flow events that found no room.
    FlowLost = 26,
    /// Passed: a duplicate of the proof, taken off.
    ProofRepeated = 27,
    /// Passed: a SYN-ACK once more behind an established handshake, bare.
    SynAckRepeated = 28,
    /// Passed: segments of an older connection in the way of a new one, and resets that clear it.
    Challenge = 29,
}

impl Counter {
    /// All counters, in the order of their numbers.
    pub const ALL: [Self; 30] = [
        Self::PuntedFrom,
        Self::PuntedTo,
        Self::RingFull,
        Self::RateLimited,
        Self::Vlan,
        Self::NotIp,
        Self::OtherProtocol,
        Self::RouterSpoof,
        Self::NoOwner,
        Self::Oversize,
        Self::Truncated,
        Self::Reinjected,
        Self::OtherAllowed,
        Self::Forged,
        Self::FastSynFrom,
        Self::FastSynTo,
        Self::FastSynAckFrom,
        Self::FastSynAckTo,
        Self::FastProofFrom,
        Self::FastProofTo,
        Self::Refused,
        Self::Cut,
        Self::Rejudged,
        Self::AgentDown,
        Self::FailedOpen,
        Self::UnknownLimited,
        Self::FlowLost,
        Self::ProofRepeated,
        Self::SynAckRepeated,
        Self::Challenge,
    ];

    /// Returns the place in [`Counters::value`](crate::Counters::value).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Returns the stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PuntedFrom => "punted-from-pu",
            Self::PuntedTo => "punted-to-pu",
            Self::RingFull => "ring-full",
            Self::RateLimited => "rate-limited",
            Self::Vlan => "vlan",
            Self::NotIp => "not-ip",
            Self::OtherProtocol => "other-protocol",
            Self::RouterSpoof => "router-spoof",
            Self::NoOwner => "no-owner",
            Self::Oversize => "oversize",
            Self::Truncated => "truncated",
            Self::Reinjected => "reinjected",
            Self::OtherAllowed => "other-allowed",
            Self::Forged => "forged",
            Self::FastSynFrom => "fast-syn-from-pu",
            Self::FastSynTo => "fast-syn-to-pu",
            Self::FastSynAckFrom => "fast-syn-ack-from-pu",
            Self::FastSynAckTo => "fast-syn-ack-to-pu",
            Self::FastProofFrom => "fast-proof-from-pu",
            Self::FastProofTo => "fast-proof-to-pu",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::Rejudged => "rejudged",
            Self::AgentDown => "agent-down",
            Self::FailedOpen => "failed-open",
            Self::UnknownLimited => "unknown-limited",
            Self::FlowLost => "flow-lost",
            Self::ProofRepeated => "proof-repeated",
            Self::SynAckRepeated => "syn-ack-repeated",
            Self::Challenge => "challenge",
        }
    }
}

/// Bits of [`Connection::flags`](crate::Connection::flags).
pub mod connection_flag {
    /// The responder's first non-SYN segment arrived.
    pub const CONFIRMED: u32 = 1;
    /// Data or FIN at the proof's sequence number left once.
    pub const DATA_SEEN: u32 = 1 << 1;
    /// The PU sent a FIN.
    pub const FIN_FROM: u32 = 1 << 2;
    /// A FIN went to the PU; `fin_to` is valid.
    pub const FIN_TO: u32 = 1 << 3;
    /// Its end was told to the collectors.
    pub const ENDED: u32 = 1 << 4;
}

/// Bits of [`Punt::flags`](crate::Punt::flags).
pub mod punt_flag {
    /// The record carries the connection's entry.
    pub const HAS_CONNECTION: u8 = 1;
    /// The entry was found in the closing table.
    pub const CLOSING: u8 = 1 << 1;
    /// The record carries an initiator's handshake; the programs have forgotten it.
    pub const HAS_OPENING: u8 = 1 << 2;
    /// The record carries a responder's handshake; the programs have forgotten it.
    pub const HAS_ANSWERING: u8 = 1 << 3;
}

/// Bits of [`Pu::flags`](crate::Pu::flags).
pub mod pu_flag {
    /// Handshakes of known identities stay in the kernel.
    pub const FAST: u8 = 1;
    /// Live connections outlast changes of policy: only the engine ends them.
    pub const KEEP: u8 = 1 << 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_reasons_and_counters_are_those_of_abi_h() {
        let header = include_str!("../../bpf-prog/src/abi.h");

        for reason in PuntReason::ALL {
            let name = format!("PUNT_{} = {},", reason.name().replace('-', "_").to_uppercase(), reason as u8);
            assert!(header.contains(&name), "{name}");
            assert_eq!(PuntReason::from_number(reason as u8), Some(reason));
        }
        for (position, counter) in Counter::ALL.into_iter().enumerate() {
            let short = counter.name().trim_end_matches("-pu").replace('-', "_").to_uppercase();
            let name = format!("COUNT_{short} = {position},");
            assert!(header.contains(&name), "{name}");
            assert_eq!(counter.index(), position);
        }
        assert_eq!(PuntReason::from_number(0), None);
    }
}
