//! Namespaces, commands in them, and what their tables look like.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use trireme_netfilter::{BackEnd, MarkField, OtherProtocols, RuleSet, Unanswered};
use trireme_netns::{Links, Namespace};

/// Those that every kernel under test has.
pub(crate) const BOTH: [BackEnd; 2] = [BackEnd::IptablesNft, BackEnd::IptablesLegacy];

pub(crate) fn rule_set() -> RuleSet {
    RuleSet {
        queue: 7,
        field: MarkField::new(0xff00_0000).unwrap(),
        released: 5,
        unanswered: Unanswered::Drop,
        other_protocols: OtherProtocols::Deny,
        tap_magic: *b"TAP\x01",
    }
}

pub(crate) fn inside<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    Namespace::anonymous().unwrap().run(what).unwrap()
}

/// Runs a command and returns what it printed.
pub(crate) fn run(command: &str) -> String {
    feed(command, "")
}

pub(crate) fn feed(command: &str, input: &str) -> String {
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}\n{input}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The back end's program of a family, such as `ip6tables-nft-save`.
pub(crate) fn program(back_end: BackEnd, tables: &str, verb: &str) -> String {
    let variant = back_end.to_string().replace("iptables-", "");
    if verb.is_empty() { format!("{tables}-{variant}") } else { format!("{tables}-{variant}-{verb}") }
}

/// All tables of both families without counters and times of day, by name. A legacy table without rules is left out: no
/// program can take it away.
pub(crate) fn tables(back_end: BackEnd) -> String {
    let mut all = String::new();
    for family in ["iptables", "ip6tables"] {
        let text = run(&program(back_end, family, "save"));
        let lines =
            text.lines().filter(|line| !line.starts_with('#')).map(|line| match line.strip_prefix(':') {
                Some(chain) => format!(":{}\n", chain.split(" [").next().unwrap()),
                None => format!("{line}\n"),
            });
        let text: String = lines.collect();
        let mut tables: Vec<&str> = text.split_inclusive("COMMIT\n").collect();
        tables.sort_unstable();
        for table in tables {
            let untouched = table.lines().all(|line| !line.starts_with('-') && !line.ends_with("DROP"));
            if back_end != BackEnd::IptablesLegacy || !untouched {
                all += &format!("{family} {table}");
            }
        }
    }
    if back_end == BackEnd::IptablesNft {
        all += &run("nft -s list ruleset");
    }
    all
}

/// Our lines of one family.
pub(crate) fn ours(back_end: BackEnd, family: &str) -> Vec<String> {
    let text = run(&program(back_end, family, "save"));
    text.lines().filter(|line| line.contains("TRIREME")).map(str::to_owned).collect()
}

/// Two namespaces with a wire between them.
pub(crate) struct Wire {
    /// Where the rules are.
    pub(crate) unit: Namespace,
    /// The other end.
    pub(crate) peer: Namespace,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let (unit, peer) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
        let addresses = [["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]];
        join(&unit, &peer, "eth0", addresses);
        Self { unit, peer }
    }
}

/// Joins two namespaces by a wire and gives its ends these addresses, in order.
pub(crate) fn join(near: &Namespace, far: &Namespace, device: &str, addresses: [[&str; 2]; 2]) {
    let peer = format!("{device}p");
    let make = || {
        let links = Links::connect().unwrap();
        let (_, end) = links.create_veth(device, &peer).unwrap();
        links.move_into(end.index, far).unwrap();
    };
    near.run(make).unwrap();
    for (namespace, device, addresses) in [(near, device, addresses[0]), (far, &peer, addresses[1])] {
        let configure = || {
            run("ip link set lo up");
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                run(&format!("ip addr add {address} dev {device} {nodad}"));
            }
            run(&format!("ip link set {device} up"));
        };
        namespace.run(configure).unwrap();
    }
}

/// The families by which the ends of a wire are reached: the unit's address and the peer's.
pub(crate) fn families() -> [(IpAddr, IpAddr); 2] {
    ["192.0.2.", "2001:db8::"].map(|net| {
        let [unit, peer] = [1, 2].map(|host| format!("{net}{host}").parse().unwrap());
        (unit, peer)
    })
}

/// Connmarks of the TCP connections of the calling thread's namespace.
pub(crate) fn connmarks() -> Vec<u32> {
    let text = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let lines = text.lines().filter(|line| line.contains(" tcp "));
    lines
        .map(|line| line.split("mark=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect()
}
