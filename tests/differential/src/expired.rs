//! Tokens that have run out: the programs decide nothing on them, whatever they knew.

use trireme_bpf::PeerState;

use crate::bed::{Outcome, PU};
use crate::compare::Hook;
use crate::season::Season;
use crate::targets::{Caller, FRIEND, SHUT, Target, callers, targets};

/// Long ago, in nanoseconds of the wall clock.
const PAST: u64 = 1;

impl Season<'_> {
    /// First the peers' tokens run out, in the middle of handshakes, then ours.
    pub(crate) fn outlive_tokens(&mut self) {
        let accepted = |target: &Target| target.slot == FRIEND && target.called.port != SHUT;
        for target in targets().into_iter().filter(accepted) {
            let dialog = self.dialog_with(&target);
            let Outcome::Passed(syn) = self.compare(Hook::FromPu, &dialog.syn(), 0, None) else { continue };
            let answer = self.answer(&target, &dialog, &syn).unwrap();
            let peers = self.expire_peers();
            self.expect_punt(Hook::ToPu, &answer, "peer's token expired");
            for (token, peer) in peers {
                self.bed.plane().peer_insert(&token, &peer).unwrap();
            }
        }
        self.expire_peers();
        let accepted = |caller: &Caller| caller.slot == FRIEND && caller.to.port != SHUT;
        for caller in callers().into_iter().filter(accepted) {
            let dialog = self.dialog_of(&caller);
            let syn = self.them.handle_plain(caller.slot, Hook::FromPu, &dialog.syn()).passed.unwrap();
            self.expect_punt(Hook::ToPu, &syn, "peer's token expired");
        }
        self.expire_ours();
        for target in targets() {
            let dialog = self.dialog_with(&target);
            self.expect_punt(Hook::FromPu, &dialog.syn(), "our token expired");
        }
    }

    fn expect_punt(&mut self, hook: Hook, packet: &[u8], what: &'static str) {
        let outcome = self.compare(hook, packet, 0, Some(what));
        assert!(matches!(outcome, Outcome::Punted(_)), "{what}: {outcome:?}");
    }

    /// Returns what they were.
    fn expire_peers(&mut self) -> Vec<([u8; 16], PeerState)> {
        let peers = self.bed.plane().peers().unwrap();
        for (token, peer) in &peers {
            let expired = PeerState { until_wall_nanos: PAST, ..*peer };
            self.bed.plane().peer_insert(token, &expired).unwrap();
        }
        peers
    }

    fn expire_ours(&mut self) {
        for own in self.state.own.iter_mut().flatten() {
            own.until_wall_nanos = PAST;
        }
        let state = self.state;
        self.bed.plane().update(PU, state).unwrap();
    }
}
