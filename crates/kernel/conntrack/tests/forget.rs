//! Against the connection tracking of the running kernel; needs root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use trireme_conntrack::{Conntrack, ConntrackError, Forgotten, Marks, Tuple};
use trireme_netns::Namespace;

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn one_connection_is_forgotten_and_its_neighbour_is_not() {
    let namespace = Namespace::anonymous().unwrap();
    namespace
        .run(|| {
            run("ip link set lo up");
            for table in ["iptables", "ip6tables"] {
                run(&format!("{table} -A INPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT"));
            }
            for address in ["127.0.0.1:7000", "[::1]:7000"] {
                let listener = TcpListener::bind(address).unwrap();
                let keep = TcpStream::connect(address).unwrap();
                let forget = TcpStream::connect(address).unwrap();
                let tuple = |stream: &TcpStream| Tuple {
                    source: stream.local_addr().unwrap(),
                    destination: stream.peer_addr().unwrap(),
                };
                let mut conntrack = Conntrack::connect().unwrap();

                assert_eq!(conntrack.forget(&tuple(&forget)).unwrap(), Forgotten::Removed);

                assert_eq!(conntrack.forget(&tuple(&forget)).unwrap(), Forgotten::Absent);
                let reverse = tuple(&keep);
                let reverse = Tuple { source: reverse.destination, destination: reverse.source };
                assert_eq!(conntrack.forget(&reverse).unwrap(), Forgotten::Removed);
                drop(listener);
            }
        })
        .unwrap();
}

#[test]
fn ends_of_different_families_are_refused() {
    let tuple = Tuple { source: "10.0.0.1:1".parse().unwrap(), destination: "[fd00::1]:2".parse().unwrap() };

    let result = Conntrack::connect().unwrap().forget(&tuple);

    match result {
        Err(ConntrackError::Families(refused)) => assert_eq!(refused, tuple),
        other => panic!("{other:?}"),
    }
}

/// Connmarks of the TCP connections of the calling thread's namespace.
fn connmarks() -> Vec<u32> {
    let text = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let lines = text.lines().filter(|line| line.contains(" tcp "));
    let marks =
        lines.map(|line| line.split("mark=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap());
    let mut marks: Vec<u32> = marks.collect();
    marks.sort_unstable();
    marks
}

#[test]
fn bits_of_marks_are_cleared_where_they_are_meant_and_nothing_else_changes() {
    let namespace = Namespace::anonymous().unwrap();
    namespace
        .run(|| {
            run("ip link set lo up");
            for table in ["iptables", "ip6tables"] {
                run(&format!(
                    "{table} -t mangle -A OUTPUT -p tcp --dport 7001 -j CONNMARK --set-mark 0x01050033"
                ));
                run(&format!(
                    "{table} -t mangle -A OUTPUT -p tcp --dport 7002 -j CONNMARK --set-mark 0x02050044"
                ));
                run(&format!("{table} -t mangle -A OUTPUT -p tcp --dport 7003 -j CONNMARK --set-mark 0x55"));
            }
            // A translation, which must outlive it, and zones.
            run("iptables -t nat -A OUTPUT -p tcp --dport 6001 -j REDIRECT --to-ports 7001");
            run("iptables -t raw -A OUTPUT -p tcp --dport 7002 -j CT --zone-orig 9");
            run("iptables -t raw -A PREROUTING -p tcp --dport 7002 -j CT --zone-orig 9");
            let mut open = Vec::new();
            for port in [7001, 7002, 7003] {
                for address in ["127.0.0.1", "[::1]"] {
                    let listener = TcpListener::bind(format!("{address}:{port}")).unwrap();
                    open.push((TcpStream::connect(format!("{address}:{port}")).unwrap(), listener));
                }
            }
            let many = [0x55, 0x55, 0x0105_0033, 0x0105_0033, 0x0205_0044, 0x0205_0044];
            assert_eq!(connmarks(), many);
            let mut conntrack = Conntrack::connect().unwrap();

            let one = Marks { mask: 0xff00_0000, value: Some(0x0200_0000) };
            assert_eq!(conntrack.clear_marks(one, 0xffff_0000).unwrap(), 2);
            assert_eq!(connmarks(), [0x44, 0x44, 0x55, 0x55, 0x0105_0033, 0x0105_0033]);
            let any = Marks { mask: 0xffff_0000, value: None };
            assert_eq!(conntrack.clear_marks(any, 0xffff_0000).unwrap(), 2);
            assert_eq!(connmarks(), [0x33, 0x33, 0x44, 0x44, 0x55, 0x55]);
            assert_eq!(conntrack.clear_marks(any, 0xffff_0000).unwrap(), 0);
        })
        .unwrap();
}
