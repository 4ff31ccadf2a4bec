//! The agent is killed: the PU stays closed for new connections, established ones go on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use trireme_bpf::{AttachMethod, Counter, PlaneConfig, Sizes};

use crate::lab::{Lab, PU, entry, from_pu, ghost_key, host_edge, state, take, to_pu};
use crate::wire::{ACK, SYN};

const ROLE: &str = "TRIREME_TEST_CRASH";

#[test]
fn killed_agent_leaves_the_pu_closed_and_established_connections_alive() {
    for method in [AttachMethod::Auto, AttachMethod::Clsact] {
        let lab = Lab::new();
        let mut child = start(&lab, method);
        let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

        child.kill().unwrap();
        child.wait().unwrap();

        let (out, back) = (from_pu(ACK, 1, b"out"), to_pu(ACK, 1, b"back"));
        pu.send(&out.packet());
        peer.expect(|frame| out.is(frame));
        peer.send(&back.packet());
        pu.expect(|frame| back.is(frame));
        for seq in 0..1000 {
            pu.send(&from_pu(SYN, seq, b"").packet());
            peer.send(&to_pu(SYN, seq, b"").packet());
        }
        let is_syn =
            |frame: &[u8]| frame.len() > 36 && frame[..2] == [8, 0] && frame[11] == 6 && frame[35] & SYN != 0;
        peer.expect_nothing(is_syn);
        pu.expect_nothing(is_syn);

        // Nobody empties the rings: what they cannot take is counted.
        let mut plane = lab.open_with(PlaneConfig { attach: method, ..lab.config() });
        let counters = plane.counters().unwrap()[0].1;
        assert!(counters.of(Counter::RingFull) > 500, "{counters:?}");
        let punted = counters.of(Counter::PuntedFrom) + counters.of(Counter::PuntedTo);
        assert_eq!(punted + counters.of(Counter::RingFull), 2000);
        assert_eq!(plane.edges()[0].state, state(1));
        pu.send(&from_pu(SYN, 5, b"").packet());
        assert_eq!(take(&mut plane, 1).len(), 1);
    }
}

fn start(lab: &Lab, method: AttachMethod) -> Child {
    let mut child = lab
        .node
        .run(|| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "crash::child_that_holds_a_plane", "--nocapture"])
                .env(ROLE, format!("{} {}", lab.instance, method == AttachMethod::Clsact))
                .stdout(Stdio::piped())
                .spawn()
        })
        .unwrap()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let ready = output.lines().map_while(Result::ok).any(|line| line.contains("ready to be killed"));
    assert!(ready);
    child
}

#[test]
#[ignore = "started by the test above"]
#[expect(clippy::print_stdout, reason = "tells its parent")]
fn child_that_holds_a_plane() {
    let role = std::env::var(ROLE).expect("started by the test above");
    let (instance, clsact) = role.split_once(' ').unwrap();
    let attach = if clsact == "true" { AttachMethod::Clsact } else { AttachMethod::Auto };
    let sizes = Sizes { ring_bytes: 1 << 17, ..Sizes::default() };
    let mut plane =
        trireme_bpf::Plane::open(PlaneConfig { attach, sizes, ..PlaneConfig::new(instance) }).unwrap();
    plane.attach(&host_edge(), PU, state(1)).unwrap();
    plane.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    println!("ready to be killed");
    loop {
        std::thread::park();
    }
}
