//! Two nodes that know each other: what the programs are taught, and what happens to it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme::datapath::bpf::testing;
use trireme_bpf::{PuState, PuntReason};
use trireme_datapath::{HalfOpenEntry, Packet};
use trireme_identity::time::WallTime;
use trireme_policy::PuPolicy;

use crate::bed::{Bed, PU, Punted};
use crate::book::Book;
use crate::compare::{Case, Hook, table_key};
use crate::lessons;
use crate::live::Live;
use crate::mirror::Mirror;
use crate::nodes::{Node, friends_only, spec};
use crate::secrets::{Trust, secrets};
use crate::tally::Tally;
use crate::targets::{FOE, FRIEND, OPEN, STRANGER, US};

/// One life of both engines.
#[derive(Debug)]
pub struct Season<'a> {
    pub(crate) bed: &'a mut Bed,
    pub(crate) tally: &'a mut Tally,
    pub(crate) rng: StdRng,
    /// The engine that is compared with the programs.
    pub(crate) us: Node,
    /// The other end's.
    pub(crate) them: Node,
    pub(crate) book: Book,
    pub(crate) mirror: Mirror,
    /// The unit as the programs see it.
    pub(crate) state: PuState,
    pub(crate) live: Vec<Live>,
    /// Earlier packets, to be repeated.
    pub(crate) history: Vec<(Hook, Vec<u8>)>,
    /// We have new keys, which no peer has answered yet: the first one that does is the engine's.
    pub(crate) renewing: bool,
}

impl<'a> Season<'a> {
    pub(crate) fn begin(
        bed: &'a mut Bed,
        tally: &'a mut Tally,
        seed: u64,
        number: u32,
        trust: Trust,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let [ours, theirs] = secrets(trust, WallTime(wall));
        // No epoch comes twice: verdicts of an earlier season hold for none of this one.
        let state = PuState { epoch: number * 16 + 1, fast: true, ..PuState::default() };
        bed.attach_anew(state);
        let mut season = Self {
            us: Node::judge(ours, rng.random()),
            them: Node::peer(theirs, rng.random()),
            bed,
            tally,
            rng,
            book: Book::default(),
            mirror: Mirror::default(),
            state,
            live: Vec::new(),
            history: Vec::new(),
            renewing: false,
        };
        for (slot, role) in [(FRIEND, "friend"), (FOE, "foe"), (STRANGER, "foe")] {
            season.them.upsert(spec(slot, role, 1, &PuPolicy::unrestricted()));
        }
        season.rule(&OPEN);
        season.meet_everybody();
        season
    }

    /// Puts a policy in force that accepts friends on these ports.
    fn rule(&mut self, ports: &[u16]) {
        self.us.upsert(spec(US, "friend", self.state.epoch, &friends_only(ports)));
        self.teach();
        let state = self.state;
        self.bed.plane().update(PU, state).unwrap();
    }

    /// The programs forget everything.
    pub(crate) fn begin_anew(&mut self) {
        let counters = self.bed.counters();
        self.tally.add(&counters);
        self.bed.attach_anew(self.state);
        self.mirror = Mirror::default();
        self.live.clear();
        self.history.clear();
    }

    /// Another policy, in another epoch; live connections are judged again.
    pub(crate) fn change_policy(&mut self, ports: &[u16]) {
        self.state.epoch += 1;
        self.rule(ports);
    }

    /// Time passes: our tokens and keys live ten minutes and are made anew after five, the other node's an hour.
    pub(crate) fn wait(&mut self, time: Duration) {
        for node in [&mut self.us, &mut self.them] {
            node.wait(time);
        }
        self.teach();
    }

    /// Carries over what the engine has taught.
    pub(crate) fn teach(&mut self) {
        self.them.lessons.clear();
        for lesson in std::mem::take(&mut self.us.lessons) {
            self.book.learn(&lesson);
            lessons::carry(self.bed.plane(), &mut self.state, &lesson);
        }
    }

    /// What only the engine can say, it says, and the plane follows: verdicts after a change, new keys.
    pub(crate) fn ask(&mut self, case: &Case<'_>, punted: &Punted, half_open: Option<HalfOpenEntry>) {
        let renewing = self.renewing && punted.reason == PuntReason::Handshake && case.what.is_none();
        if !renewing && !matches!(punted.reason, PuntReason::StaleEpoch | PuntReason::Renewal) {
            return;
        }
        self.us.forget();
        let reply = self.us.handle(Packet {
            pu: US,
            hook: case.hook,
            bytes: punted.bytes.clone(),
            gso_size: None,
            connection: punted.connection,
            half_open,
            renewal: punted.reason == PuntReason::Renewal,
            token: 0,
        });
        self.teach();
        for (key, entry) in reply.writes {
            let place = table_key(&key);
            match entry {
                Some(entry) => {
                    self.bed.plane().connection_insert(&place, &testing::connection(&entry)).unwrap();
                }
                None => drop(self.bed.plane().connection_remove(&place).unwrap()),
            }
            self.mirror.flow(key).closing = None;
        }
    }
}
