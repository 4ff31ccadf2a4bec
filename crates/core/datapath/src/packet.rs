//! What goes in and what comes out.

use std::time::Duration;

use trireme_flow::{ConnectionEntry, FlowKey, FlowRecord, PuSlot, Reason};
use trireme_identity::Protocol;
use trireme_token::Role;
use trireme_wire::tuple::Tuple;

use crate::{HalfOpenEntry, Lesson, VerifyJob};

/// Where a packet was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It leaves the processing unit.
    FromPu,
    /// It is about to reach the processing unit.
    ToPu,
}

impl Hook {
    /// The flow of a packet that was taken here, as its unit sees it.
    #[must_use]
    pub fn flow(self, pu: PuSlot, protocol: Protocol, tuple: Tuple) -> FlowKey {
        let (local, remote) = match self {
            Self::FromPu => (tuple.src, tuple.dst),
            Self::ToPu => (tuple.dst, tuple.src),
        };
        FlowKey::new(pu, protocol, local.into(), remote.into())
    }

    /// The flow of the packet that an ICMP error taken here quotes: the error goes to whom that came from.
    #[must_use]
    pub fn quoted_flow(self, pu: PuSlot, protocol: Protocol, tuple: Tuple) -> FlowKey {
        self.flow(pu, protocol, tuple.reversed())
    }
}

/// Where an emitted packet is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Toward {
    /// Into the processing unit, behind the place where [`Hook::ToPu`] takes packets.
    Pu,
    /// Out to the network, behind the place where [`Hook::FromPu`] takes packets.
    Network,
}

impl From<Hook> for Toward {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::FromPu => Self::Network,
            Hook::ToPu => Self::Pu,
        }
    }
}

/// A packet that the back end cannot decide by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The processing unit at whose edge it was taken.
    pub pu: PuSlot,
    /// Where it was taken.
    pub hook: Hook,
    /// Its bytes from the IP header on.
    pub bytes: Vec<u8>,
    /// The segment size, if the packet is to be cut into segments further down.
    pub gso_size: Option<u16>,
    /// What the connection table held for it, current or not; for an ICMP error, for the packet it quotes. Later fragments
    /// have none.
    pub connection: Option<ConnectionEntry>,
    /// The handshake that the back end hands over with it.
    pub half_open: Option<HalfOpenEntry>,
    /// Whether the back end asks for the unit's newest token to be shown to the peer.
    pub renewal: bool,
    /// Whatever the back end wants to find again on the packet.
    pub token: u64,
}

/// What becomes of a packet. The back end carries out the effects first, in order, then the verdict.
///
/// An [`Effect::Install`] may be written when the packet is on its way instead: until then the connection's segments
/// come to the engine, which lets them pass. A back end whose table and packets take different ways does so, or data
/// overtakes the proof in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a verdict lives for one call, and most are the large one")]
pub enum Verdict {
    /// Put it back where it was taken, with the bytes it has.
    Pass(Packet),
    /// Forget it.
    Drop(Reason),
    /// The engine keeps it and will release it as [`Effect::Transmit`], or drop it.
    Held,
}

/// A flow that the policy refuses, so that its next packets need not come to the engine.
///
/// It concerns only packets from the end that `role` says has begun the flow, and neither datagrams that begin with the TAP
/// magic nor those of a connection entry. A table of such flows forgets the oldest when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The unit's part in the flow: as initiator its own packets are dropped, as responder those that it is sent.
    pub role: Role,
    /// It holds in this epoch of the unit only.
    pub epoch: u32,
    /// As which the dropped packets are counted.
    pub reason: Reason,
    /// The number of the rule that refused.
    pub rule: Option<u16>,
    /// How long it holds.
    pub lasts: Duration,
}

/// What the back end has to do beside the verdict, in the order of emission.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "effects live for one call; records among them are rare")]
pub enum Effect {
    /// Put a packet on its way: an emitted one, or one that was held.
    Transmit {
        /// The processing unit at whose edge it starts.
        pu: PuSlot,
        /// In which direction it goes on.
        toward: Toward,
        /// Its bytes from the IP header on; its checksum field is full or partial like the original's.
        bytes: Vec<u8>,
        /// The segment size of a held packet that had one.
        gso_size: Option<u16>,
    },
    /// Run the job on any thread and give its result to `Engine::handle_verified`.
    Verify(VerifyJob),
    /// Write the entry into the connection table, over whatever is there, a [`Block`] too.
    Install(FlowKey, ConnectionEntry),
    /// Remove the entry from the connection table, if there is one.
    Remove(FlowKey),
    /// Drop a flow's packets without asking, for a while. Never for TCP; a back end that does not care goes on asking.
    Block(FlowKey, Block),
    /// Hand the record to the collectors.
    Record(FlowRecord),
    /// A fact for a back end that completes handshakes by itself; others ignore it.
    Teach(Lesson),
    /// Delete this node's conntrack entry of the connection, so that it starts anew.
    ForgetConntrack(Tuple),
}
