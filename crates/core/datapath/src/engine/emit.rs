//! Segments that the engine itself sends.

use trireme_flow::FlowKey;
use trireme_handshake::initiator::Proof;
use trireme_wire::build::{self, BuildError, TcpSpec};
use trireme_wire::datagram::Datagram;
use trireme_wire::tcp::options::Timestamps;
use trireme_wire::tcp::{Flags, Options, Segment};
use trireme_wire::tuple::Endpoint;

use super::{Context, Engine};
use crate::{Effect, Toward};

/// How a message of the engine's own travels to the sender of a packet.
pub(super) trait View {
    /// The packet that carries it.
    fn carry(&self, key: FlowKey, payload: &[u8]) -> Result<Vec<u8>, BuildError>;
}

impl View for Segment {
    fn carry(&self, key: FlowKey, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
        let (from, to) = (Endpoint::from(key.local), Endpoint::from(key.remote));
        let ack = self.seq.wrapping_add(1);
        build::tcp(&TcpSpec { payload, ..TcpSpec::new(from, to, 0, ack, Flags::ACK) })
    }
}

/// Over UDP a message is a datagram of its own on the flow's ports, whatever it answers.
impl View for Datagram {
    fn carry(&self, key: FlowKey, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
        carry_over_udp(key, payload)
    }
}

fn carry_over_udp(key: FlowKey, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
    build::udp(key.local.into(), key.remote.into(), build::DEFAULT_HOP_LIMIT, payload)
}

impl Engine {
    /// Sends a message of the engine's own: over TCP in an ACK-only segment that a stack waiting for a SYN-ACK discards.
    pub(super) fn send_control<V: View>(&mut self, cx: &mut Context<'_, V>, payload: &[u8]) {
        if let Ok(bytes) = cx.view.carry(cx.key, payload) {
            cx.out.push(Effect::Transmit { pu: cx.slot, toward: Toward::Network, bytes, gso_size: None });
        }
    }

    /// Sends the proof as a segment of its own, in front of the unit's segment: no option but the timestamp.
    pub(super) fn send_proof_before(&mut self, cx: &mut Context<'_>, bytes: &[u8], proof: &Proof) {
        let spec = ProofSpec {
            ack: cx.view.ack,
            window: cx.view.window,
            hop_limit: cx.view.ip.hop_limit,
            timestamps: cx.view.options(bytes).timestamps(),
        };
        self.send_proof(cx, proof, spec);
    }

    /// Sends the proof in answer to a SYN-ACK, with the numbers that the unit's stack would use.
    pub(super) fn send_proof_for_syn_ack(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        syn: &[u8],
        proof: &Proof,
    ) {
        let Ok(sent) = Segment::parse(syn) else { return };
        let (own, peer) = (sent.options(syn), cx.view.options(bytes));
        let scale = match (window_scale(own.clone()), window_scale(peer.clone())) {
            (Some(shift), Some(_)) => shift.min(14),
            (Some(_) | None, Some(_) | None) => 0,
        };
        let timestamps = own
            .timestamps()
            .zip(peer.timestamps())
            .map(|(own, peer)| Timestamps { value: own.value, echo: peer.value });
        let spec = ProofSpec {
            ack: cx.view.seq.wrapping_add(1),
            window: (sent.window >> scale).max(1),
            hop_limit: sent.ip.hop_limit,
            timestamps,
        };
        self.send_proof(cx, proof, spec);
    }

    /// Sends a message as a datagram of its own on the flow's ports.
    pub(super) fn send_datagram<V>(&mut self, cx: &mut Context<'_, V>, payload: &[u8]) {
        if let Ok(bytes) = carry_over_udp(cx.key, payload) {
            cx.out.push(Effect::Transmit { pu: cx.slot, toward: Toward::Network, bytes, gso_size: None });
        }
    }

    fn send_proof(&mut self, cx: &mut Context<'_>, proof: &Proof, spec: ProofSpec) {
        let options = spec.timestamps.map(Timestamps::encode);
        let (from, to) = (Endpoint::from(cx.key.local), Endpoint::from(cx.key.remote));
        let spec = TcpSpec {
            window: spec.window,
            options: options.as_ref().map_or(&[], |bytes| bytes.as_slice()),
            payload: &proof.payload,
            hop_limit: spec.hop_limit,
            ..TcpSpec::new(from, to, proof.seq, spec.ack, Flags::ACK)
        };
        if let Ok(bytes) = build::tcp(&spec) {
            cx.out.push(Effect::Transmit { pu: cx.slot, toward: Toward::Network, bytes, gso_size: None });
        }
    }
}

struct ProofSpec {
    ack: u32,
    window: u16,
    hop_limit: u8,
    timestamps: Option<Timestamps>,
}

/// The window scale option (RFC 7323).
const WINDOW_SCALE: u8 = 3;

fn window_scale(options: Options<'_>) -> Option<u8> {
    options.find(WINDOW_SCALE)?.data.first().copied()
}
