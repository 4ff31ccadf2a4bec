//! What the programs know about flows, as far as their packets tell it.

use std::collections::{BTreeMap, HashMap};

use trireme_datapath::{HalfOpenEntry, Hook, Party, SynHeader};
use trireme_flow::{ConnectionEntry, FlowKey};
use trireme_token::{Nonce, TokenId};
use trireme_wire::tap::Header;
use trireme_wire::tcp::{Flags, Segment};

use crate::frames::payload;

/// Handshakes and closing connections by flow.
#[derive(Debug, Default)]
pub struct Mirror {
    flows: HashMap<FlowKey, Flow>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    opening: Option<HalfOpenEntry>,
    /// By the initiator's sequence number.
    answering: BTreeMap<u32, HalfOpenEntry>,
    /// What came to the programs and what became of it, for accounts of divergences.
    pub(crate) log: Vec<String>,
    /// What the closing table holds.
    pub(crate) closing: Option<ConnectionEntry>,
}

fn party(bytes: &[u8]) -> Option<Party> {
    let header = Header::parse(payload(bytes)).ok()?;
    Some(Party { token: TokenId(header.token_id), nonce: Nonce(header.nonce) })
}

fn isn_of(entry: &HalfOpenEntry) -> u32 {
    match entry {
        HalfOpenEntry::Opening { isn, .. } | HalfOpenEntry::Answering { isn, .. } => *isn,
    }
}

impl Mirror {
    /// Whether anything ever came on this flow.
    pub(crate) fn has_seen(&self, key: &FlowKey) -> bool {
        self.flows.contains_key(key)
    }

    pub(crate) fn flow(&mut self, key: FlowKey) -> &mut Flow {
        self.flows.entry(key).or_default()
    }
}

impl Flow {
    /// The handshake that the programs would hand over with this segment.
    pub(crate) fn handed(
        &self,
        hook: Hook,
        segment: &Segment,
        live: Option<&ConnectionEntry>,
    ) -> Option<HalfOpenEntry> {
        let (seq, ack) = (segment.seq, segment.ack);
        let opening = |isn: u32| self.opening.clone().filter(|entry| isn_of(entry) == isn);
        match (hook, segment.flags.contains(Flags::SYN), segment.flags.contains(Flags::ACK)) {
            (Hook::FromPu, true, false) => opening(seq),
            (Hook::ToPu, true, false) => self.answering.get(&seq).cloned(),
            (Hook::FromPu, true, true) => self.answering.get(&ack.wrapping_sub(1)).cloned(),
            // Behind an established handshake nothing is handed over: see `unasked` in the program.
            (Hook::ToPu, true, true) => opening(ack.wrapping_sub(1)).filter(|entry| !is_proving(entry)),
            (Hook::FromPu, false, _) => match live {
                Some(entry) if entry.confirmed => None,
                // Only where the proof is due.
                Some(entry) if segment.is_empty_ack() || seq == entry.proof_seq => {
                    opening(entry.proof_seq.wrapping_sub(1))
                }
                Some(_) => None,
                None => self.answering.get(&ack.wrapping_sub(1)).or(self.opening.as_ref()).cloned(),
            },
            (Hook::ToPu, false, _) if live.is_some() => None,
            (Hook::ToPu, false, _) => {
                self.answering.get(&seq.wrapping_sub(1)).or(self.opening.as_ref()).cloned()
            }
        }
    }

    /// The unit's SYN left as `out`.
    pub(crate) fn opened(&mut self, epoch: u32, segment: &Segment, before: &[u8], out: &[u8]) {
        let Some(own) = party(out) else { return };
        self.closing = None;
        if let Some(HalfOpenEntry::Opening { isn, syns, own: kept, .. }) = &mut self.opening
            && *isn == segment.seq
        {
            (*syns, *kept) = (*syns + 1, own);
            return;
        }
        let tcp = before[segment.ip.header_len..segment.ip.header_len + segment.header_len].to_vec();
        let traffic_class = if before[0] >> 4 == 4 { before[1] } else { before[0] << 4 | before[1] >> 4 };
        let syn = SynHeader { hop_limit: segment.ip.hop_limit, traffic_class, tcp };
        let isn = segment.seq;
        self.opening = Some(HalfOpenEntry::Opening { isn, epoch, syns: 1, own, peer: None, syn });
    }

    /// A peer's SYN reached the unit; the nonce of ours has not left yet, and any token of ours will do.
    pub(crate) fn called(
        &mut self,
        epoch: u32,
        segment: &Segment,
        before: &[u8],
        (own, holds): (TokenId, bool),
    ) {
        let Some(peer) = party(before) else { return };
        let own = Party { token: own, nonce: Nonce::ZERO };
        let isn = segment.seq;
        let entry = HalfOpenEntry::Answering { isn, epoch, own, peer, holds, syn_ack: None };
        self.answering.entry(isn).or_insert(entry);
    }

    /// The unit's SYN-ACK is about to leave as `out`: it shows who we are.
    pub(crate) fn shown(&mut self, isn: u32, out: &[u8]) {
        if let (Some(HalfOpenEntry::Answering { own, .. }), Some(shown)) =
            (self.answering.get_mut(&isn), party(out))
        {
            *own = shown;
        }
    }

    /// It has left.
    pub(crate) fn answered(&mut self, isn: u32, seq: u32) {
        if let Some(HalfOpenEntry::Answering { syn_ack, .. }) = self.answering.get_mut(&isn) {
            *syn_ack = Some(seq);
        }
    }

    /// A responder's SYN-ACK reached the unit.
    pub(crate) fn accepted(&mut self, isn: u32, before: &[u8]) {
        if let Some(HalfOpenEntry::Opening { isn: own, peer: peer @ None, .. }) = &mut self.opening
            && *own == isn
        {
            *peer = party(before);
        }
    }

    pub(crate) fn forget_opening(&mut self) {
        self.opening = None;
    }

    pub(crate) fn forget_answering(&mut self, isn: u32) {
        self.answering.remove(&isn);
    }

    pub(crate) fn forget(&mut self, handed: &HalfOpenEntry) {
        match handed {
            HalfOpenEntry::Opening { .. } => self.opening = None,
            HalfOpenEntry::Answering { isn, .. } => self.forget_answering(*isn),
        }
    }
}

pub(crate) const fn is_proving(entry: &HalfOpenEntry) -> bool {
    matches!(entry, HalfOpenEntry::Opening { peer: Some(_), .. })
}
