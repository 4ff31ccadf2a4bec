//! The way back onto the ingress of an interface: a private veth pair whose near end lies in a namespace that
//! has no name and ends with the agent.

use std::fmt;

use aya::programs::TcAttachType;
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use trireme_bpf_abi::{TICKETS, Ticket};
use trireme_netns::{Links, Namespace, disable_ipv6};

use crate::config::AttachMethod;
use crate::error::{Cause, InjectorError};
use crate::object::{self, Constants};
use crate::pins::Pins;
use crate::probe;
use crate::socket::PacketSocket;
use crate::{PlaneConfig, attach};

/// Larger than any packet, so that the trailer always fits.
const MTU: u32 = 65_535;

/// One private pair into one namespace.
pub(crate) struct Injector {
    pub(crate) socket: PacketSocket,
    pub(crate) near: u32,
    secret: [u8; 16],
    private: Namespace,
    /// Keeps the program attached where it is a link.
    _link: Option<FdLink>,
}

impl Injector {
    /// Builds the pair with its far end in `target`.
    pub(crate) fn new(target: &Namespace, pins: &Pins, config: &PlaneConfig) -> Result<Self, InjectorError> {
        let private = Namespace::anonymous()?;
        let mut secret = [0; 16];
        random(&mut secret)?;
        let name = format!("trj{:08x}", u32::from_ne_bytes(random_word()?));
        let (socket, near) = private.run(|| near_end(target, &name))??;
        let half = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        let (low, high) = secret.split_at(8);
        let constants = Constants { secret: [half(low), half(high)], ..Constants::default() };
        let mut object = object::load(pins, config, constants).map_err(InjectorError::Program)?;
        let link = target.run(|| far_end(&name, &mut object, config.attach))??;
        Ok(Self { socket, near, secret, private, _link: link })
    }

    /// Builds the trailer of a frame for the ingress of `ifindex`.
    pub(crate) fn ticket(&self, ifindex: u32, mark: u32) -> Ticket {
        Ticket { secret: self.secret, ifindex, mark }
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").field("near", &self.near).finish_non_exhaustive()
    }
}

impl Drop for Injector {
    /// The pair would end with the namespace, but some time later.
    fn drop(&mut self) {
        let near = self.near;
        let gone = self.private.run(|| Links::connect()?.delete(near));
        if let Ok(Err(error)) = gone {
            tracing::debug!(%error, "private veth pair ends with its namespace");
        }
    }
}

/// One-time marks: unpredictable, with the number of the ticket in the low bits.
pub(crate) struct Marks {
    next: u32,
    pool: Vec<u8>,
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self { next: 0, pool: Vec::new() }
    }

    /// Returns a mark that none of the last [`TICKETS`] equals; None without randomness.
    pub(crate) fn draw(&mut self) -> Option<u32> {
        if self.pool.len() < 4 {
            let mut fresh = vec![0; 1024];
            random(&mut fresh).ok()?;
            self.pool = fresh;
        }
        let at = self.pool.len() - 4;
        let bits = <[u8; 4]>::try_from(self.pool.split_off(at)).ok()?;
        self.next = self.next.wrapping_add(1) % TICKETS;
        // No mark is zero: zero is "no mark".
        let mark = u32::from_ne_bytes(bits) & !(TICKETS - 1) | self.next;
        Some(if mark == 0 { TICKETS } else { mark })
    }
}

fn near_end(target: &Namespace, name: &str) -> Result<(PacketSocket, u32), InjectorError> {
    let links = Links::connect()?;
    let (near, far) = links.create_veth("near", name)?;
    disable_ipv6("near").map_err(|source| InjectorError::Io { what: "the near end", source })?;
    links.set_mtu(near.index, MTU)?;
    links.set_mtu(far.index, MTU)?;
    links.move_into(far.index, target)?;
    links.set_up(near.index)?;
    let socket =
        PacketSocket::open().map_err(|source| InjectorError::Io { what: "a packet socket", source })?;
    Ok((socket, near.index))
}

fn far_end(
    name: &str,
    object: &mut aya::Ebpf,
    method: AttachMethod,
) -> Result<Option<FdLink>, InjectorError> {
    let links = Links::connect()?;
    let far = links.by_name(name)?;
    disable_ipv6(name).map_err(|source| InjectorError::Io { what: "the far end", source })?;
    let program = object::program(object, "inject").map_err(InjectorError::Program)?;
    let failed = |error: Cause| InjectorError::Program(error);
    let link = if method == AttachMethod::Auto && probe::has_tcx() {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program
            .attach_with_options(name, TcAttachType::Ingress, options)
            .map_err(|error| failed(error.into()))?;
        let link = program.take_link(id).map_err(|error| failed(error.into()))?;
        Some(FdLink::try_from(link).map_err(|error| failed(error.into()))?)
    } else {
        aya::programs::tc::qdisc_add_clsact(name).map_err(|error| failed(error.into()))?;
        let options = TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() });
        let id = program
            .attach_with_options(name, TcAttachType::Ingress, options)
            .map_err(|error| failed(error.into()))?;
        attach::leave_attached(program.take_link(id).map_err(|error| failed(error.into()))?);
        None
    };
    links.set_up(far.index)?;
    Ok(link)
}

fn random_word() -> Result<[u8; 4], InjectorError> {
    let mut word = [0; 4];
    random(&mut word)?;
    Ok(word)
}

fn random(bytes: &mut [u8]) -> Result<(), InjectorError> {
    crate::random::fill(bytes).map_err(|source| InjectorError::Io { what: "randomness", source })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn marks_are_never_zero_and_use_one_ticket_after_the_other() {
        let mut marks = Marks::new();

        let drawn: Vec<u32> = (0..2 * TICKETS).filter_map(|_| marks.draw()).collect();

        assert!(!drawn.contains(&0));
        for window in drawn.chunks(1024) {
            let places: HashSet<u32> = window.iter().map(|mark| mark % TICKETS).collect();
            assert!(places.len() >= 1023, "{}", places.len());
        }
        let high: HashSet<u32> = drawn.iter().map(|mark| mark / TICKETS).collect();
        assert!(high.len() > 4000, "{}", high.len());
    }
}
