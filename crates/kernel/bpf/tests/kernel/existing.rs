//! Connections that are older than the enforcement.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};

use trireme_bpf::{Class, ExistingError, FlowKey, PlaneError, Slot};
use trireme_netns::Namespace;

use crate::lab::{Lab, PU, host_edge, state};

/// A process in a namespace, by which it is found.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(namespace: &Namespace) -> Self {
        Self(namespace.run(|| Command::new("sleep").arg("120").spawn().unwrap()).unwrap())
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn connect(from: &Namespace, to: &Namespace, address: &str) -> (TcpStream, TcpStream) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = to.run(|| TcpListener::bind(address).unwrap()).unwrap();
    let client = from.run(|| TcpStream::connect(address).unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn talk(one: &mut TcpStream, other: &mut TcpStream) {
    let limit = Some(std::time::Duration::from_secs(5));
    one.set_read_timeout(limit).unwrap();
    other.set_read_timeout(limit).unwrap();
    let mut buffer = [0; 4];
    one.write_all(b"ping").unwrap();
    other.read_exact(&mut buffer).unwrap();
    other.write_all(b"pong").unwrap();
    one.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"pong");
}

#[test]
fn existing_connections_are_found_and_once_adopted_go_on_whatever_the_epoch() {
    for inside in [false, true] {
        let lab = Lab::new();
        let (mut out, mut out_end) = connect(&lab.pu, &lab.peer, "10.8.0.2:7100");
        let (mut back, mut back_end) = connect(&lab.peer, &lab.pu, "[fd09::2]:7101");
        let _inhabitant = Inhabitant::of(&lab.pu);
        let mut plane = lab.open();
        let edge = if inside { lab.inside_edge() } else { host_edge() };
        plane.attach(&edge, PU, state(1)).unwrap();

        let mut found = plane.existing_connections(PU).unwrap();

        found.sort_unstable();
        let ends = |stream: &TcpStream| (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let mut expected = [ends(&out), ends(&back_end)];
        expected.sort_unstable();
        assert_eq!(found, expected);
        for (local, remote) in found {
            let key =
                FlowKey { slot: PU, local: (local.ip(), local.port()), remote: (remote.ip(), remote.port()) };
            plane.connection_adopt(&key).unwrap();
            assert_eq!(plane.connection(&key).unwrap().unwrap().0.class, Class::Adopted);
        }
        plane.update(PU, state(2)).unwrap();
        talk(&mut out, &mut out_end);
        talk(&mut back, &mut back_end);
        assert_eq!(plane.drain(10, |_| {}), 0);
    }
}

#[test]
fn namespace_that_nothing_leads_to_is_said_to_be_not_found() {
    let lab = Lab::new();
    let mut plane = lab.attached();

    let hidden = plane.existing_connections(PU);
    let unknown = plane.existing_connections(Slot(9));
    let key = FlowKey { slot: Slot(9), ..crate::lab::ghost_key(1, 2) };
    let adopted = plane.connection_adopt(&key);

    assert!(matches!(&hidden, Err(ExistingError::NamespaceNotFound(name)) if name == "host0"), "{hidden:?}");
    assert!(hidden.unwrap_err().to_string().starts_with("namespace not found"));
    assert!(matches!(unknown, Err(ExistingError::NotAttached(Slot(9)))), "{unknown:?}");
    assert!(matches!(adopted, Err(PlaneError::NotAttached(Slot(9)))), "{adopted:?}");
}
