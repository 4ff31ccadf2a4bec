//! Fragments: the first is judged by its ports, the later ones follow what was decided about it.

use trireme_flow::{FlowKey, FragmentKey, PuSlot, Reason};
use trireme_identity::time::Now;
use trireme_wire::datagram::Datagram;
use trireme_wire::ip;

use super::refuse::Refused;
use super::{Context, Engine, Judged, Next};
use crate::{Effect, Hook, Packet};

impl Engine {
    /// A later fragment passes if the first one did, under the policy in force; else it waits a little for it.
    pub(super) fn later_fragment(&self, cx: &Context<'_, Datagram>, hook: Hook) -> Judged {
        let Some(key) = fragment_key(cx) else { return Err(Refused::by_hook(hook, Reason::Internal)) };
        match self.fragments.get(&key, cx.now.monotonic) {
            Some(First::Passed(epoch)) if epoch == cx.unit.epoch => Ok(Next::Pass),
            Some(First::Waits(flow)) if self.waiting.has(flow) => Ok(Next::HoldPart(flow)),
            Some(First::Passed(_) | First::Waits(_)) => Err(Refused::by_hook(hook, Reason::FragmentOrphan)),
            None => Ok(Next::HoldFragment(key)),
        }
    }

    /// Lets an admitted first fragment go on, and behind it what waited for it.
    pub(super) fn first_fragment(&mut self, cx: &mut Context<'_, Datagram>, packet: &mut Packet) -> Next {
        let Some(key) = fragment_key(cx) else { return Next::Pass };
        self.fragments.insert(key, First::Passed(cx.unit.epoch), cx.now.monotonic);
        let held = self.fragments_held.take(key);
        if held.is_empty() {
            return Next::Pass;
        }
        let first = Packet { bytes: std::mem::take(&mut packet.bytes), ..packet.clone() };
        for Packet { pu, hook, bytes, gso_size, .. } in std::iter::once(first).chain(held) {
            cx.out.push(Effect::Transmit { pu, toward: hook.into(), bytes, gso_size });
        }
        Next::Sent
    }

    /// A first fragment that waits for its flow: the later ones wait behind it.
    pub(super) fn hold_fragments(&mut self, packet: &Packet, flow: FlowKey, now: Now) {
        if let Some(key) = first_of(packet) {
            self.fragments.insert(key, First::Waits(flow), now.monotonic);
        }
    }

    /// A first fragment that has waited goes on.
    pub(super) fn settle_fragment(&mut self, packet: &Packet, epoch: u32, now: Now) {
        if let Some(key) = first_of(packet) {
            self.fragments.insert(key, First::Passed(epoch), now.monotonic);
        }
    }

    /// Takes an earlier decision back: a refused first fragment must not share the fragments of an admitted one.
    pub(super) fn forget_fragment(&mut self, cx: &Context<'_, Datagram>) {
        let is_first = cx.view.ip.fragment.is_some_and(|fragment| !fragment.is_later());
        if let Some(key) = fragment_key(cx).filter(|_| is_first) {
            self.fragments.remove(&key);
            let held = u64::try_from(self.fragments_held.take(key).len()).unwrap_or(u64::MAX);
            self.count_many(cx.slot, Reason::FragmentOrphan, held);
        }
    }

    /// Whether a fragment of this quoted packet was admitted here.
    pub(super) fn knows_fragment(&self, pu: PuSlot, quoted: &ip::Packet, now: Now) -> bool {
        name(pu, quoted).is_some_and(|key| self.fragments.get(&key, now.monotonic).is_some())
    }
}

/// What was decided about a first fragment.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    /// It passed, under this epoch of its unit.
    Passed(u32),
    /// It waits for this flow.
    Waits(FlowKey),
}

/// The name of the fragments that a held packet is the first of.
fn first_of(packet: &Packet) -> Option<FragmentKey> {
    let ip = ip::Packet::parse(&packet.bytes).ok()?;
    ip.fragment.filter(|fragment| !fragment.is_later())?;
    name(packet.pu, &ip)
}

fn fragment_key(cx: &Context<'_, Datagram>) -> Option<FragmentKey> {
    name(cx.slot, &cx.view.ip)
}

fn name(pu: PuSlot, ip: &ip::Packet) -> Option<FragmentKey> {
    let id = ip.fragment?.id;
    Some(FragmentKey { pu, source: ip.src, destination: ip.dst, protocol: ip.protocol, id })
}
