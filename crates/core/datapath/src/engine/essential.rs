//! Packets without which IP does not work: they pass whatever the policy says.

use std::net::IpAddr;

use trireme_flow::FlowKey;
use trireme_identity::Protocol;
use trireme_wire::datagram::{Datagram, Message, Transport};

use super::Unit;
use crate::{Essential, Hook};

/// What a packet is to the IP stacks of unit and network.
pub(super) enum Need {
    /// They need it.
    Vital,
    /// Only a router may send it.
    RoutersOnly,
    /// A packet like others.
    Ordinary,
}

/// What this packet is, for this unit.
pub(super) fn need(unit: &Unit, key: &FlowKey, view: &Datagram, hook: Hook) -> Need {
    if view.ip.fragment.is_some() {
        return Need::Ordinary;
    }
    let settings = &unit.settings;
    let own = settings.to_itself == Essential::Passes && key.local.0 == key.remote.0;
    let dhcp = settings.dhcp == Essential::Passes && is_dhcp(key);
    match &view.transport {
        _ if own || dhcp => Need::Vital,
        Transport::Icmp(message) => of_message(view, *message, hook),
        Transport::Opaque if is_group_report(view) => Need::Vital,
        Transport::Ports(_) | Transport::Opaque | Transport::Later => Need::Ordinary,
    }
}

/// Neighbour discovery counts only where no router can have carried it (RFC 4861, section 7.1), listener discovery likewise
/// (RFC 3810, section 5).
fn of_message(view: &Datagram, message: Message, hook: Hook) -> Need {
    let limit = view.ip.hop_limit;
    match (view.ip.protocol, message.icmp_type, hook) {
        (Protocol::ICMPV6, 134 | 137, Hook::FromPu) | (Protocol::ICMP, 5 | 9, Hook::FromPu) => {
            Need::RoutersOnly
        }
        (Protocol::ICMPV6, 133..=137, _) if limit == 255 && message.icmp_code == 0 => Need::Vital,
        (Protocol::ICMPV6, 130..=132 | 143, _) if limit == 1 => Need::Vital,
        _ => Need::Ordinary,
    }
}

/// IGMP: without it no group that a rule allows would ever be heard. It leaves no link and carries no data.
fn is_group_report(view: &Datagram) -> bool {
    let to_group = matches!(view.ip.dst, IpAddr::V4(dst) if dst.is_multicast());
    view.ip.protocol == Protocol::IGMP && view.ip.hop_limit == 1 && to_group
}

/// A client's end of DHCP (RFC 2131, section 4.1; RFC 8415, section 7.2).
fn is_dhcp(key: &FlowKey) -> bool {
    let ports = (key.local.1, key.remote.1);
    key.protocol == Protocol::UDP
        && match key.local.0 {
            IpAddr::V4(_) => ports == (68, 67),
            IpAddr::V6(_) => ports == (546, 547),
        }
}
