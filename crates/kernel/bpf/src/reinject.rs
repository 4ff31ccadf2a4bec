//! Putting packets back where they were taken.

use std::net::IpAddr;
use std::sync::Arc;

use trireme_bpf_abi::Ticket;
use zerocopy::IntoBytes as _;

use crate::Slot;
use crate::checksum::complete_partial;
use crate::datagram;
use crate::frame::{Mac, Neighbours, Pairs, addresses, header};
use crate::inject::{Injector, Marks};
use crate::segment::{segment_size, split};
use crate::socket::{Frame, PacketSocket};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Toward {
    /// To the PU.
    Pu,
    /// From the PU into the network.
    Network,
}

/// A packet that user space puts on a PU's edge, past the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The PU.
    pub slot: Slot,
    /// Which way.
    pub toward: Toward,
    /// The packet from its IP header on. A TCP or UDP checksum that is partial is completed; any other is left alone.
    pub bytes: Vec<u8>,
    /// Segment size, if the packet is larger than the wire carries.
    pub gso_size: Option<u16>,
    /// Token of the punt that brought the packet; None for a packet that user space made.
    pub token: Option<u64>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reinjected {
    /// Packets that left, a split one counted once per segment.
    pub sent: usize,
    /// Packets of a PU that is not attached.
    pub unattached: usize,
    /// Packets whose hardware addresses nobody has seen.
    pub unaddressed: usize,
    /// Packets that the kernel refused.
    pub refused: usize,
}

/// How an interface is reached.
#[derive(Clone, Debug)]
pub(crate) enum Port {
    /// Out of the interface, past the egress program.
    Direct { socket: Arc<PacketSocket>, ifindex: u32 },
    /// Into the interface, with a one-time mark for the ingress program.
    Inject { injector: Arc<Injector>, ifindex: u32 },
}

/// One frame, ready but for its socket.
pub(crate) struct Prepared {
    ethernet: [u8; 14],
    packet: Vec<u8>,
    ticket: Option<Ticket>,
}

/// Frames that leave through one socket.
#[derive(Default)]
pub(crate) struct Batch {
    groups: Vec<(Port, Vec<Prepared>)>,
}

impl Batch {
    /// Adds the frames of a packet; false without randomness for a mark.
    pub(crate) fn add(&mut self, port: &Port, pair: (Mac, Mac), packet: Packet, marks: &mut Marks) -> bool {
        let Some(ethernet) = header(pair, &packet.bytes) else { return false };
        let packets = if let Some(size) = segment_size(&packet.bytes, packet.gso_size, packet.mtu) {
            split(&packet.bytes, size)
        } else if let Some(datagrams) = datagram::split(&packet.bytes, packet.gso_size) {
            datagrams
        } else {
            let mut bytes = packet.bytes;
            complete_partial(&mut bytes);
            datagram::complete_partial(&mut bytes);
            vec![bytes]
        };
        for packet in packets {
            let ticket = match port {
                Port::Direct { .. } => None,
                Port::Inject { injector, ifindex } => {
                    let Some(mark) = marks.draw() else { return false };
                    Some(injector.ticket(*ifindex, mark))
                }
            };
            self.push(port, Prepared { ethernet, packet, ticket });
        }
        true
    }

    /// Sends everything; returns (sent, refused).
    pub(crate) fn send(self) -> (usize, usize) {
        let (mut sent, mut total) = (0, 0);
        for (port, prepared) in &self.groups {
            let (socket, ifindex) = match port {
                Port::Direct { socket, ifindex } => (socket.as_ref(), *ifindex),
                Port::Inject { injector, .. } => (&injector.socket, injector.near),
            };
            let frames: Vec<Frame<'_>> = prepared
                .iter()
                .map(|frame| Frame {
                    ifindex,
                    ethernet: frame.ethernet,
                    packet: &frame.packet,
                    trailer: frame.ticket.as_ref().map_or(&[], |ticket| ticket.as_bytes()),
                })
                .collect();
            total += frames.len();
            sent += socket.send(&frames);
        }
        (sent, total - sent)
    }

    fn push(&mut self, port: &Port, frame: Prepared) {
        match self.groups.iter_mut().find(|(other, _)| same_way(other, port)) {
            Some((_, frames)) => frames.push(frame),
            None => self.groups.push((port.clone(), vec![frame])),
        }
    }
}

/// A packet and what decides its size on the wire.
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) gso_size: Option<u16>,
    pub(crate) mtu: u32,
}

/// Hardware addresses (destination, source) for a packet.
pub(crate) fn pair_for(injection: &Injection, pairs: &Pairs, neighbours: &Neighbours) -> Option<(Mac, Mac)> {
    if let Some(pair) = injection.token.and_then(|token| pairs.pair(token)) {
        return Some(pair);
    }
    let (pu, hop) = neighbours.ends(remote(injection)?)?;
    Some(match injection.toward {
        Toward::Pu => (pu, hop),
        Toward::Network => (hop, pu),
    })
}

fn remote(injection: &Injection) -> Option<IpAddr> {
    let (source, destination) = addresses(&injection.bytes)?;
    Some(match injection.toward {
        Toward::Pu => source,
        Toward::Network => destination,
    })
}

fn same_way(one: &Port, other: &Port) -> bool {
    match (one, other) {
        (Port::Direct { socket: a, ifindex: i }, Port::Direct { socket: b, ifindex: j }) => {
            Arc::ptr_eq(a, b) && i == j
        }
        (Port::Inject { injector: a, .. }, Port::Inject { injector: b, .. }) => Arc::ptr_eq(a, b),
        (Port::Direct { .. }, Port::Inject { .. }) | (Port::Inject { .. }, Port::Direct { .. }) => false,
    }
}
