//! The rules, independent of the dialect; the modules of the dialects write them out.
//!
//! A packet takes one of three ways through a namespace, and each way clears the field of its mark before a hook that
//! saves it:
//!
//! ```text
//! sent by the unit      OUTPUT (FromUnit)  ... POSTROUTING (SaveFrom)
//! received by the unit  INPUT (ToUnit)     ... INPUT, filter (SaveTo)
//! routed through        FORWARD (Through)  ... POSTROUTING (SaveFrom)
//! ```
//!
//! A packet that a verdict accepted goes on at the next base chain of its hook. Between clearing and saving only a
//! verdict writes the field; so a mark that a process set on its socket, or that a rule set on arrival, never releases.
//! Loopback packets are cleared as well, and are then left alone: a connection to the unit itself that a rule
//! redirects elsewhere would otherwise carry its process's mark to `POSTROUTING`.

use crate::{OtherProtocols, RuleSet};

/// A hook at which rules stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Local packets, before translation and filtering.
    FromUnit,
    /// Packets for local sockets, before filtering.
    ToUnit,
    /// Routed packets.
    Through,
    /// Packets on their way out, after the queue.
    SaveFrom,
    /// Packets for local sockets, after the queue.
    SaveTo,
}

impl Place {
    pub(crate) const ALL: [Self; 5] =
        [Self::FromUnit, Self::ToUnit, Self::Through, Self::SaveFrom, Self::SaveTo];
}

/// Which packets a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// All.
    Any,
    /// Those that do not leave the namespace.
    Loopback,
    /// TCP with SYN set, whatever else is.
    Syn,
    /// TCP whose payload begins with the magic.
    Magic,
    /// TCP of a released connection; in IPv6 directly behind the fixed header.
    Released,
    /// TCP.
    Tcp,
    /// ICMP and ICMPv6 errors: they may be about a connection that waits.
    IcmpErrors,
    /// Neighbour discovery and multicast listeners, without which IPv6 does not work.
    Neighbours,
    /// The mark's field says nothing.
    MarkNothing,
    /// The mark's field says reset.
    MarkReset,
    /// The mark's field says anything but reset.
    MarkRelease,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Clears the field of the packet's mark.
    ClearMark,
    /// Clears the field of the connmark.
    ClearConnmark,
    /// Copies the field of the packet's mark into the connmark.
    SaveMark,
    /// Hands the packet to the agent.
    Queue,
    /// Lets the packet go on.
    Return,
    /// Drops and counts the packet.
    Deny,
}

/// The rules at `place`, in order.
pub(crate) fn rules(place: Place, rule_set: &RuleSet) -> Vec<(Match, Action)> {
    match place {
        Place::FromUnit => edge(rule_set, false),
        Place::ToUnit => edge(rule_set, true),
        Place::Through => vec![(Match::Any, Action::ClearMark)],
        Place::SaveFrom | Place::SaveTo => vec![
            (Match::MarkNothing, Action::Return),
            (Match::MarkReset, Action::ClearConnmark),
            (Match::MarkRelease, Action::SaveMark),
            (Match::Any, Action::ClearMark),
        ],
    }
}

/// The rules that hand packets over.
fn edge(rule_set: &RuleSet, inward: bool) -> Vec<(Match, Action)> {
    let mut rules = vec![
        (Match::Any, Action::ClearMark),
        (Match::Loopback, Action::Return),
        // A new handshake on an old tuple ends what the old one was granted.
        (Match::Syn, Action::ClearConnmark),
        (Match::Syn, Action::Queue),
    ];
    if inward {
        // A peer may repeat its proof on a connection that this side has released already.
        rules.push((Match::Magic, Action::Queue));
    }
    rules.extend([
        (Match::Released, Action::Return),
        (Match::Tcp, Action::Queue),
        (Match::IcmpErrors, Action::Queue),
        (Match::Neighbours, Action::Return),
    ]);
    match rule_set.other_protocols {
        OtherProtocols::Judge => rules.push((Match::Any, Action::Queue)),
        OtherProtocols::Deny => rules.push((Match::Any, Action::Deny)),
        OtherProtocols::Allow => {}
    }
    rules
}

/// Types of ICMP errors (RFC 792; source quench and redirect are obsolete or of no concern to a connection).
pub(crate) const ICMP_ERRORS: [u8; 3] = [3, 11, 12];

/// Types of ICMPv6 errors (RFC 4443).
pub(crate) const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];

/// Types of multicast listener discovery (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861).
pub(crate) const ICMPV6_NEIGHBOURS: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];
