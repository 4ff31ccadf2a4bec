//! How long flows of protocols without connections are remembered.

use std::time::Duration;

use trireme_identity::Protocol;

/// How long a packet may take to be reassembled; later fragments follow the decision about the first for so long.
///
/// Source: Linux, `net.ipv4.ipfrag_time`; RFC 8200, section 4.5 allows twice as much.
pub const FRAGMENT_TIME: Duration = Duration::from_secs(30);

/// From whom packets of a flow have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// From the end that began it.
    Initiator,
    /// From both ends.
    Both,
}

/// How long an entry of a flow without packets is kept: as long as connection trackers and translators on the path keep
/// theirs, so that both forget together.
///
/// Not for TCP, whose entries live as long as their sockets.
///
/// Source: Linux, `net.netfilter.nf_conntrack_*_timeout`; RFC 4787, REQ-5; RFC 5508, REQ-2.
#[must_use]
pub const fn idle_time(protocol: Protocol, heard: Heard) -> Duration {
    let secs = match (protocol, heard) {
        (Protocol::UDP | Protocol::UDP_LITE | Protocol::ICMP | Protocol::ICMPV6, Heard::Initiator) => 30,
        (Protocol::ICMP | Protocol::ICMPV6, Heard::Both) => 60,
        (Protocol::UDP | Protocol::UDP_LITE, Heard::Both) => 180,
        // Their heartbeats and keep-alives come more often.
        (Protocol::SCTP | Protocol::DCCP, Heard::Initiator) => 60,
        _ => 600,
    };
    Duration::from_secs(secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_with_answers_is_remembered_longer() {
        for number in 0..=u8::MAX {
            let times = [Heard::Initiator, Heard::Both].map(|heard| idle_time(Protocol(number), heard));
            assert!(times[0] <= times[1] && times[0] >= FRAGMENT_TIME, "{number}");
        }
        assert_eq!(idle_time(Protocol::UDP, Heard::Initiator), Duration::from_secs(30));
        assert_eq!(idle_time(Protocol::UDP, Heard::Both), Duration::from_secs(180));
    }
}
