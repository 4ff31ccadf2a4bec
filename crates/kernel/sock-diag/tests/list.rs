//! Live connections of a namespace are listed, and nothing else.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};

use trireme_netns::{Links, Namespace};
use trireme_sock_diag::{TcpConnection, tcp_connections, tcp_connections_of, tcp_listeners_of, tcp_remains};

fn ip(namespace: &Namespace, arguments: &str) {
    let status = namespace
        .run(|| std::process::Command::new("ip").args(arguments.split(' ')).status())
        .unwrap()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Two namespaces with a link between them.
fn pair() -> (Namespace, Namespace) {
    let (one, two) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
    one.run(|| {
        let links = Links::connect().unwrap();
        let (_, end) = links.create_veth("eth0", "eth1").unwrap();
        links.move_into(end.index, &two).unwrap();
    })
    .unwrap();
    for (namespace, device, number) in [(&one, "eth0", 1), (&two, "eth1", 2)] {
        ip(namespace, &format!("addr add 10.7.0.{number}/24 dev {device}"));
        ip(namespace, &format!("addr add fd07::{number}/64 dev {device} nodad"));
        ip(namespace, &format!("link set {device} up"));
        ip(namespace, "link set lo up");
    }
    (one, two)
}

fn connect(
    from: &Namespace,
    to: &Namespace,
    listen: &str,
    address: &str,
) -> (TcpStream, TcpStream, SocketAddr) {
    let listener = to.run(|| TcpListener::bind(listen).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let remote: SocketAddr = address.replace("PORT", &port.to_string()).parse().unwrap();
    let client = from.run(|| TcpStream::connect(remote).unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    (client, server, remote)
}

#[test]
fn connections_of_both_families_are_listed_once_from_both_ends() {
    let (one, two) = pair();
    let (v4, _server4, remote4) = connect(&one, &two, "10.7.0.2:0", "10.7.0.2:PORT");
    let (v6, _server6, remote6) = connect(&one, &two, "[fd07::2]:0", "[fd07::2]:PORT");
    // A socket of IPv6 that speaks IPv4.
    let (mapped, _server, remote) = connect(&one, &two, "[::]:0", "10.7.0.2:PORT");
    let _listener = one.run(|| TcpListener::bind("10.7.0.1:0").unwrap()).unwrap();

    let from_one = one.run(tcp_connections).unwrap().unwrap();
    let from_two = two.run(tcp_connections).unwrap().unwrap();

    let mut expected = [(&v4, remote4), (&v6, remote6), (&mapped, remote)]
        .map(|(stream, remote)| TcpConnection { local: stream.local_addr().unwrap(), remote });
    expected.sort_unstable();
    assert_eq!(from_one, expected);
    let mut mirrored = expected.map(|c| TcpConnection { local: c.remote, remote: c.local });
    mirrored.sort_unstable();
    assert_eq!(from_two, mirrored);
}

#[test]
fn half_closed_connection_is_listed_and_one_inside_the_namespace_is_not() {
    let (one, two) = pair();
    let (client, _server, remote) = connect(&one, &two, "10.7.0.2:0", "10.7.0.2:PORT");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let _inside = connect(&one, &one, "127.0.0.1:0", "127.0.0.1:PORT");

    let found = one.run(tcp_connections).unwrap().unwrap();

    assert_eq!(found, [TcpConnection { local: client.local_addr().unwrap(), remote }]);
}

#[test]
fn more_connections_than_one_datagram_holds_are_all_listed() {
    let (one, two) = pair();
    let streams: Vec<_> = (0..400).map(|_| connect(&one, &two, "10.7.0.2:0", "10.7.0.2:PORT")).collect();

    assert_eq!(one.run(tcp_connections).unwrap().unwrap().len(), streams.len());
}

/// The number of this process's cgroup.
fn own_cgroup() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::Path::new);
    let root = root.into_iter().find(|root| root.join("cgroup.procs").exists()).unwrap();
    std::fs::metadata(root.join(own)).unwrap().ino()
}

#[test]
fn sockets_of_a_cgroup_are_told_from_those_of_others() {
    let (one, two) = pair();
    let (client, _server, remote) = connect(&one, &two, "10.7.0.2:0", "10.7.0.2:PORT");
    let listener = one.run(|| TcpListener::bind("[fd07::1]:0").unwrap()).unwrap();
    let (own, other) = (HashSet::from([own_cgroup()]), HashSet::from([u64::MAX]));

    let of = |cgroups| one.run(|| (tcp_connections_of(cgroups), tcp_listeners_of(cgroups))).unwrap();

    let (connections, listeners) = of(&own);
    assert_eq!(connections.unwrap(), [TcpConnection { local: client.local_addr().unwrap(), remote }]);
    assert_eq!(listeners.unwrap(), [listener.local_addr().unwrap()]);
    let (connections, listeners) = of(&other);
    assert_eq!((connections.unwrap(), listeners.unwrap()), (vec![], vec![]));
}

#[test]
fn connection_that_waits_for_its_time_is_among_the_remains() {
    let (one, two) = pair();
    let (client, server, _) = connect(&one, &two, "[fd07::2]:0", "[fd07::2]:PORT");
    let local = client.local_addr().unwrap();
    drop(client);
    drop(server);
    let start = std::time::Instant::now();
    while one.run(tcp_remains).unwrap().unwrap() != [local] {
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", one.run(tcp_remains));
    }
    assert_eq!(one.run(tcp_connections).unwrap().unwrap(), []);
}
