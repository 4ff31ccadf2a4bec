//! Repeats a FIN that the stack has forgotten.
//!
//! smoltcp 0.14 sends a FIN only once when a fast retransmission rewinds over it or when the segment before it
//! is repeated alone; both ends then wait for ever. A stack that the tests can rely on repeats it.

use crate::packets::{ACK, FIN, RST, SYN, TcpPacket, TcpView};

/// Longer than the stack's longest retransmission timeout.
const PATIENCE: u64 = 70 * 1_000_000_000;

/// The FIN of a connection, once it was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct LastFin {
    packet: Option<TcpPacket>,
    sent_at: u64,
}

impl LastFin {
    /// Takes note of a segment that the stack sent.
    pub(super) fn remember(&mut self, now: u64, view: &TcpView<'_>) {
        if view.flags & (SYN | RST) != 0 {
            self.packet = None;
        } else if view.has(FIN) {
            let len = u32::try_from(view.payload.len()).unwrap_or(0);
            // Without its data: a receiver that has the data takes the whole segment for a repetition.
            let bare = TcpPacket::syn(view.src, view.dst, view.seq.wrapping_add(len));
            self.packet = Some(TcpPacket { ack: view.ack, flags: FIN | ACK, window: view.window, ..bare });
            self.sent_at = now;
        } else if let Some(packet) = &mut self.packet {
            // A repeated FIN acknowledges what has arrived by then.
            packet.ack = view.ack;
        }
    }

    /// When it is to be repeated, if there is one.
    pub(super) fn due_at(&self) -> Option<u64> {
        self.packet.as_ref().map(|_| self.sent_at.saturating_add(PATIENCE))
    }

    /// An empty acknowledgement of everything that has arrived, behind the FIN.
    pub(super) fn challenge(&self) -> Option<Vec<u8>> {
        let packet = self.packet.as_ref()?;
        Some(TcpPacket { flags: ACK, seq: packet.seq.wrapping_add(1), ..packet.clone() }.build())
    }

    /// The segment to repeat.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        self.packet.as_ref().map(TcpPacket::build)
    }
}
