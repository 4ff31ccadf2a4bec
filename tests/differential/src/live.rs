//! Established connections: what goes over them, and what damaged packets do to them.

use rand::Rng;
use trireme_token::Role;
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

use crate::compare::Hook;
use crate::frames::{Dialog, FIN_ACK, PSH_ACK, RST_ACK};
use crate::season::Season;
use crate::steps::Course;

/// A connection that both ends consider established.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    dialog: Dialog,
    role: Role,
    course: Course,
}

/// Connections that are kept for changes of policy.
const KEPT: usize = 48;

impl Live {
    pub(crate) fn new(dialog: Dialog, role: Role, responder: Endpoint) -> Self {
        // Whoever was disturbed on the way here may be unknown to the programs.
        Self { dialog: Dialog { responder, ..dialog }, role, course: Course::Disturbed }
    }
}

impl Season<'_> {
    /// Some packets of the newest connection.
    pub(crate) fn talk(&mut self) {
        if let Some(live) = self.live.pop() {
            let live = self.exchange(live);
            self.live.push(live);
        }
        if self.live.len() > KEPT {
            let index = self.rng.random_range(0..self.live.len());
            let live = self.live.swap_remove(index);
            self.end(&live);
        }
    }

    /// A packet each way on every connection that is kept.
    pub(crate) fn talk_on_all(&mut self) {
        for live in std::mem::take(&mut self.live) {
            let live = self.exchange(live);
            self.live.push(live);
        }
    }

    fn exchange(&mut self, mut live: Live) -> Live {
        for _ in 0..self.rng.random_range(1..4) {
            let sent = self.rng.random_range(0..100_000);
            let got = self.rng.random_range(0..100_000);
            let size = self.rng.random_range(0..64);
            let data = vec![b'x'; size];
            let from_initiator = self.rng.random_bool(0.5);
            let segment = if from_initiator {
                live.dialog.ahead(sent, got, PSH_ACK, &data)
            } else {
                live.dialog.back(sent, got, PSH_ACK, &data)
            };
            let hook = hook_of(live.role, from_initiator);
            self.stage(hook, &segment, None, &mut live.course);
        }
        live
    }

    /// Both FINs, or a reset.
    fn end(&mut self, live: &Live) {
        let mut course = live.course;
        let Live { dialog, role, .. } = live;
        let (ahead, back) = (hook_of(*role, true), hook_of(*role, false));
        if self.rng.random_bool(0.2) {
            self.stage(ahead, &dialog.ahead(9, 9, RST_ACK, &[]), None, &mut course);
        } else {
            self.stage(ahead, &dialog.ahead(9, 9, FIN_ACK, &[]), None, &mut course);
            self.stage(back, &dialog.back(9, 10, FIN_ACK, &[]), None, &mut course);
        }
        self.stage(ahead, &dialog.ahead(10, 10, Flags::ACK, &[]), None, &mut course);
        self.stage(back, &dialog.back(10, 10, Flags::ACK, &[]), None, &mut course);
        // The tuple may be used again.
        if self.rng.random_bool(0.3) && *role == Role::Initiator {
            let isn = self.rng.random();
            self.stage(Hook::FromPu, &Dialog { isn, ..*dialog }.syn(), None, &mut course);
        }
    }
}

const fn hook_of(role: Role, from_initiator: bool) -> Hook {
    match (role, from_initiator) {
        (Role::Initiator, true) | (Role::Responder, false) => Hook::FromPu,
        (Role::Initiator, false) | (Role::Responder, true) => Hook::ToPu,
    }
}
