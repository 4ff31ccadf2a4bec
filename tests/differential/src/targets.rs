//! Who lives where.

use std::net::IpAddr;

use trireme_flow::PuSlot;
use trireme_wire::tuple::Endpoint;

/// The unit whose packets go through the programs.
pub(crate) const US: PuSlot = PuSlot(5);
/// Accepted on the right ports.
pub(crate) const FRIEND: PuSlot = PuSlot(1);
/// Refused, and known: the unit has called it.
pub(crate) const FOE: PuSlot = PuSlot(2);
/// Refused, and known by its token alone: it only calls.
pub(crate) const STRANGER: PuSlot = PuSlot(3);

/// Ports that the policy accepts.
pub(crate) const OPEN: [u16; 2] = [80, 443];
/// A port that it does not.
pub(crate) const SHUT: u16 = 81;

/// Somebody the unit calls: an address, and who answers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) called: Endpoint,
    /// Another one than `called` behind a service.
    pub(crate) own: Endpoint,
    pub(crate) slot: PuSlot,
}

/// Somebody who calls the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) slot: PuSlot,
    pub(crate) from: IpAddr,
    pub(crate) to: Endpoint,
}

fn address(v6: bool, net: u8, host: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, u16::from(net), 0, 0, 0, 0, 0, u16::from(host)])
    } else {
        IpAddr::from([10, net, 0, host])
    }
}

/// The unit's own address.
pub(crate) fn us(v6: bool) -> IpAddr {
    address(v6, 9, 2)
}

fn home(v6: bool, slot: PuSlot) -> IpAddr {
    address(v6, 8, u8::try_from(slot.0).unwrap())
}

pub(crate) fn targets() -> Vec<Target> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let at = |host: IpAddr, port| Endpoint::new(host, port);
        for port in [OPEN[0], OPEN[1], SHUT] {
            let own = at(home(v6, FRIEND), port);
            all.push(Target { called: own, own, slot: FRIEND });
            // A service in front of the same.
            all.push(Target { called: at(address(v6, 7, 1), port), own, slot: FRIEND });
        }
        let own = at(home(v6, FOE), OPEN[0]);
        all.push(Target { called: own, own, slot: FOE });
    }
    all
}

pub(crate) fn callers() -> Vec<Caller> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        for slot in [FRIEND, FOE, STRANGER] {
            for port in [OPEN[0], OPEN[1], SHUT] {
                all.push(Caller { slot, from: home(v6, slot), to: Endpoint::new(us(v6), port) });
            }
        }
    }
    all
}
