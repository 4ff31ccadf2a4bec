//! Who judges the handshakes of a test: the agents by way of programs or of queues, or the programs in the kernel.

use std::fmt;
use std::time::Duration;

use trireme_testkit::lab::{Agent, Family, LabError, Pu, Reach, Server, eventually, probe};

use crate::{PATIENT, PORT, PROMPT, World, WorldSpec};

/// The counters of handshake segments that the programs let pass by themselves.
const FAST: [&str; 6] = [
    "fast-syn-from-pu",
    "fast-syn-to-pu",
    "fast-syn-ack-from-pu",
    "fast-syn-ack-to-pu",
    "fast-proof-from-pu",
    "fast-proof-to-pu",
];

/// Who judges the handshakes of peers that know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The agents: the fast path is off.
    Agent,
    /// The programs: the fast path is on, and the client and the server have met.
    Kernel,
    /// The agents, by netfilter queues: there are no programs.
    Queue,
}

/// Segments of handshakes that the programs of both nodes let pass by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fast {
    /// SYNs that left the client and SYNs that reached the server.
    pub syns: [u64; 2],
    /// SYN-ACKs that left the server and that reached the client.
    pub syn_acks: [u64; 2],
    /// Proofs that left the client and that reached the server.
    pub proofs: [u64; 2],
}

impl Fast {
    /// What came on top of an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let less = |now: [u64; 2], then: [u64; 2]| {
            let ([now_a, now_b], [then_a, then_b]) = (now, then);
            [now_a.saturating_sub(then_a), now_b.saturating_sub(then_b)]
        };
        Self {
            syns: less(self.syns, earlier.syns),
            syn_acks: less(self.syn_acks, earlier.syn_acks),
            proofs: less(self.proofs, earlier.proofs),
        }
    }

    /// Whether the programs let a SYN of the client go.
    #[must_use]
    pub fn is_begun(self) -> bool {
        let [sent, _] = self.syns;
        sent > 0
    }

    /// Whether whole handshakes were judged, at both ends.
    #[must_use]
    pub fn is_whole(self) -> bool {
        [self.syns, self.syn_acks, self.proofs].iter().flatten().all(|count| *count > 0)
    }
}

impl fmt::Display for Fast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { syns, syn_acks, proofs } = self;
        write!(f, "SYN {syns:?}, SYN-ACK {syn_acks:?}, proof {proofs:?} (sent, received)")
    }
}

/// Runs a test once for each judge, in a world of its own, and checks from the kernel's counters who it was.
///
/// The test must have the client connect to the server. Which judge it was is printed first.
///
/// # Panics
/// If the test does, or if the handshakes were judged by another.
pub fn by_each(test: impl Fn(&mut World)) {
    by_each_in(|_| {}, Fast::is_whole, test);
}

/// As [`by_each`], in a changed world.
///
/// # Panics
/// As [`by_each`].
pub fn by_each_with(change: impl Fn(&mut WorldSpec), test: impl Fn(&mut World)) {
    by_each_in(change, Fast::is_whole, test);
}

/// As [`by_each`], for tests that keep handshakes from completing: the client's SYN leaves with its judge.
///
/// # Panics
/// As [`by_each`].
pub fn by_each_disturbed(test: impl Fn(&mut World)) {
    by_each_in(|_| {}, Fast::is_begun, test);
}

fn by_each_in(change: impl Fn(&mut WorldSpec), wanted: fn(Fast) -> bool, test: impl Fn(&mut World)) {
    for judge in [Judge::Agent, Judge::Kernel, Judge::Queue] {
        eprintln!("handshakes judged by: {judge:?}");
        let mut spec = WorldSpec::new();
        change(&mut spec);
        let mut world = spec.judged_by(judge).start();
        if judge == Judge::Kernel {
            world.introduce();
        }
        let before = world.fast();
        test(&mut world);
        let taken = world.fast().since(before);
        match judge {
            Judge::Agent | Judge::Queue => {
                assert_eq!(taken, Fast::default(), "judged by the programs: {taken}")
            }
            Judge::Kernel => assert!(wanted(taken), "not judged by the programs: {taken}\n{}", world.look()),
        }
    }
}

impl WorldSpec {
    /// Has the handshakes of both nodes judged by this one.
    #[must_use]
    pub fn judged_by(mut self, judge: Judge) -> Self {
        let (value, datapath) = match judge {
            Judge::Agent => ("off", "bpf"),
            Judge::Kernel => ("on", "bpf"),
            Judge::Queue => ("on", "nfqueue"),
        };
        for config in [&mut self.a, &mut self.b] {
            config.datapath = datapath;
            config.enforcement.push_str(&format!("fast_path = \"{value}\"\n"));
        }
        self
    }
}

impl World {
    /// The usual world, in which the client and the server know each other.
    ///
    /// # Panics
    /// As [`World::start`] and [`World::introduce`].
    #[must_use]
    pub fn acquainted() -> Self {
        let world = WorldSpec::new().judged_by(Judge::Kernel).start();
        world.introduce();
        world
    }

    /// Has the client meet the server, in both families, until the programs judge the whole handshake.
    ///
    /// # Panics
    /// If they never do.
    pub fn introduce(&self) {
        self.introduce_pus(&self.client, &self.server);
    }

    /// Has a workload of node a meet one of node b, until the programs judge the whole handshake.
    ///
    /// # Panics
    /// If they never do.
    pub fn introduce_pus(&self, client: &Pu, server: &Pu) {
        let _server = Server::echo(&server.namespace, PORT).expect("the server can listen");
        for family in Family::BOTH {
            let meet = || {
                let before = self.fast();
                let reach = probe(&client.namespace, server.at(family, PORT), PROMPT)?;
                assert_eq!(reach, Reach::Answered, "{family}\n{}", self.logs());
                Ok(self.fast().since(before).is_whole())
            };
            eventually("a handshake judged by the programs", PATIENT * 6, meet, || self.look())
                .unwrap_or_else(|error| panic!("{family}: {error}"));
        }
    }

    /// What the programs of both nodes have judged so far, the client being on node a.
    ///
    /// # Panics
    /// If an agent does not answer.
    #[must_use]
    pub fn fast(&self) -> Fast {
        let count = |agent: &Agent, name| agent.kernel_count(name).expect("the agent tells its counters");
        let [syn_from, syn_to, syn_ack_from, syn_ack_to, proof_from, proof_to] = FAST;
        Fast {
            syns: [count(&self.a, syn_from), count(&self.b, syn_to)],
            syn_acks: [count(&self.b, syn_ack_from), count(&self.a, syn_ack_to)],
            proofs: [count(&self.a, proof_from), count(&self.b, proof_to)],
        }
    }

    /// Runs something and tells what the programs judged meanwhile.
    ///
    /// # Panics
    /// If an agent does not answer.
    pub fn judged<T>(&self, code: impl FnOnce() -> T) -> (T, Fast) {
        let before = self.fast();
        let result = code();
        (result, self.fast().since(before))
    }

    /// What the client sees of the server within this time.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn client_sees_within(&self, family: Family, limit: Duration) -> Reach {
        probe(&self.client.namespace, self.server.at(family, PORT), limit).expect("the client's stack works")
    }

    /// Counters and logs of both nodes, for messages of failing tests.
    #[must_use]
    pub fn look(&self) -> String {
        let counters = |agent: &Agent| -> Result<String, LabError> {
            let status = agent.status()?;
            Ok(status.pointer("/datapath/counters").map(ToString::to_string).unwrap_or_default())
        };
        let [a, b] =
            [&self.a, &self.b].map(|agent| counters(agent).unwrap_or_else(|error| error.to_string()));
        format!("counters of a: {a}\ncounters of b: {b}\n{}", self.logs())
    }
}
