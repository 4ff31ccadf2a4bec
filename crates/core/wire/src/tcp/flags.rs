use std::fmt;

/// The flag byte of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);
    /// SYN and ACK.
    pub const SYN_ACK: Self = Self::SYN.union(Self::ACK);

    /// Returns whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the bits of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the bits that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether this is a SYN that opens a connection (no ACK).
    #[must_use]
    pub const fn is_syn(self) -> bool {
        self.contains(Self::SYN) && !self.intersects(Self::ACK)
    }

    /// Returns whether this is a SYN-ACK.
    #[must_use]
    pub const fn is_syn_ack(self) -> bool {
        self.contains(Self::SYN_ACK)
    }

    /// Returns what is odd about the combination, if anything.
    #[must_use]
    pub const fn anomaly(self) -> Option<FlagAnomaly> {
        let xmas = Self::FIN.union(Self::PSH).union(Self::URG);
        // ECN bits never stand for anything on their own.
        let control = self.without(Self::ECE.union(Self::CWR));
        if control.0 == 0 {
            return Some(FlagAnomaly::Null);
        }
        if control.contains(Self::SYN) {
            return if control.contains(Self::FIN) {
                Some(FlagAnomaly::SynFin)
            } else if control.contains(Self::RST) {
                Some(FlagAnomaly::SynRst)
            } else if control.contains(Self::URG) {
                Some(FlagAnomaly::SynUrg)
            } else {
                None
            };
        }
        if control.contains(Self::RST) {
            return if control.contains(Self::FIN) { Some(FlagAnomaly::RstFin) } else { None };
        }
        if control.contains(Self::ACK) {
            return None;
        }
        Some(if control.0 == Self::URG.0 {
            FlagAnomaly::UrgOnly
        } else if control.contains(xmas) {
            FlagAnomaly::Xmas
        } else {
            FlagAnomaly::MissingAck
        })
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Flags, &str); 8] = [
            (Flags::SYN, "SYN"),
            (Flags::FIN, "FIN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
            (Flags::URG, "URG"),
            (Flags::ECE, "ECE"),
            (Flags::CWR, "CWR"),
        ];
        let mut separator = "";
        for (flag, name) in NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

/// A combination of flags that no conforming stack sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlagAnomaly {
    /// No control flag at all.
    Null,
    /// SYN with FIN.
    SynFin,
    /// SYN with RST.
    SynRst,
    /// SYN with URG.
    SynUrg,
    /// RST with FIN.
    RstFin,
    /// URG alone.
    UrgOnly,
    /// FIN, PSH and URG without ACK.
    Xmas,
    /// Neither SYN, RST nor ACK (RFC 9293: every later segment carries ACK).
    MissingAck,
}

impl FlagAnomaly {
    /// Returns the stable name for counters, records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null-flags",
            Self::SynFin => "syn-fin",
            Self::SynRst => "syn-rst",
            Self::SynUrg => "syn-urg",
            Self::RstFin => "rst-fin",
            Self::UrgOnly => "urg-only",
            Self::Xmas => "xmas-flags",
            Self::MissingAck => "missing-ack",
        }
    }
}
