//! Two nodes, a router, and workloads.

use std::fmt;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::namespace::run;
use super::{LabError, Namespace};

/// Where the lab's BPF file system is mounted, below its directory.
const BPFFS: &str = "bpf";

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The first node.
    A,
    /// The second node.
    B,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other node.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(super) const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

/// A node: a namespace that forwards between its bridge and the router.
#[derive(Clone, Debug)]
pub struct Node {
    /// Which of the two.
    pub side: Side,
    /// Where its agent runs.
    pub namespace: Namespace,
    pus: u8,
}

impl Node {
    /// The name used for the node's key and in reports.
    #[must_use]
    pub fn name(&self) -> String {
        format!("node-{}", self.side)
    }
}

/// A workload: a namespace with one interface on its node's bridge.
#[derive(Clone, Debug)]
pub struct Pu {
    /// The name given, unique on its node.
    pub name: String,
    /// Its node.
    pub side: Side,
    /// Where its programs run; its interface there is `eth0`.
    pub namespace: Namespace,
    /// The end of its veth pair in the node's namespace: where enforcement happens.
    pub interface: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pu {
    /// Its address in a family.
    #[must_use]
    pub const fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// A port of it.
    #[must_use]
    pub const fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }
}

/// The whole laboratory; dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    pub(super) router: Namespace,
    nodes: [Node; 2],
    made: Vec<Namespace>,
    keep: bool,
}

impl Lab {
    /// Builds two nodes and the router between them.
    ///
    /// # Errors
    /// [`LabError`] if this is not root or a piece of it cannot be made; what was made is removed.
    pub fn new() -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let id = random_id()?;
        let dir = std::env::temp_dir().join(format!("trireme-lab-{id}"));
        fs::create_dir(&dir).map_err(LabError::io(format!("creating {}", dir.display())))?;
        let mut made = Made { dir: dir.clone(), namespaces: Vec::new(), armed: true };
        let bpffs = dir.join(BPFFS);
        fs::create_dir(&bpffs).map_err(LabError::io(format!("creating {}", bpffs.display())))?;
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs))?;
        let router = made.namespace(&format!("tl-{id}-r"))?;
        forward(&router)?;
        let a = build_node(&mut made, &id, &router, Side::A)?;
        let b = build_node(&mut made, &id, &router, Side::B)?;
        made.armed = false;
        let namespaces = std::mem::take(&mut made.namespaces);
        Ok(Self { id, dir, router, nodes: [a, b], made: namespaces, keep: false })
    }

    /// The random part of every name of this lab.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A directory for files of this lab, removed with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A BPF file system of its own for the agents' pinned objects.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join(BPFFS)
    }

    /// The router's namespace; its interfaces are `to-a` and `to-b`, after the nodes they lead to.
    #[must_use]
    pub const fn router(&self) -> &Namespace {
        &self.router
    }

    /// One of the nodes.
    #[must_use]
    pub const fn node(&self, side: Side) -> &Node {
        let [a, b] = &self.nodes;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    /// Leaves namespaces and files in place when dropped, for a look at them.
    pub const fn keep(&mut self) {
        self.keep = true;
    }

    /// Adds a workload to a node.
    ///
    /// # Errors
    /// [`LabError`] if its interface cannot be made or the node is full.
    pub fn add_pu(&mut self, side: Side, name: &str) -> Result<Pu, LabError> {
        let [a, b] = &mut self.nodes;
        let node = match side {
            Side::A => a,
            Side::B => b,
        };
        let host =
            node.pus.checked_add(10).filter(|host| *host < 250).ok_or_else(|| LabError::Full(node.name()))?;
        node.pus += 1;
        let namespace = Namespace::create(&format!("tl-{}-{side}{host}", self.id))?;
        self.made.push(namespace.clone());
        let net = side.number();
        let interface = format!("pu{host}");
        node.namespace.ip(&format!(
            "link add {interface} type veth peer name eth0 netns {}\n\
             link set {interface} master br0 up\n",
            namespace.name()
        ))?;
        namespace.ip(&format!(
            "link set eth0 up\n\
             addr add 10.10.{net}.{host}/24 dev eth0\n\
             addr add fd00:10:{net}::{host:x}/64 dev eth0 nodad\n\
             route add default via 10.10.{net}.1\n\
             route add ::/0 via fd00:10:{net}::1\n"
        ))?;
        Ok(Pu {
            name: name.to_owned(),
            side,
            namespace,
            interface,
            v4: Ipv4Addr::new(10, 10, net, host),
            v6: Ipv6Addr::new(0xfd00, 0x10, u16::from(net), 0, 0, 0, 0, u16::from(host)),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep {
            remove_all(&self.made, &self.dir);
        }
    }
}

/// What exists so far, removed if building stops half way.
struct Made {
    dir: PathBuf,
    namespaces: Vec<Namespace>,
    armed: bool,
}

impl Made {
    fn namespace(&mut self, name: &str) -> Result<Namespace, LabError> {
        let namespace = Namespace::create(name)?;
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.armed {
            remove_all(&self.namespaces, &self.dir);
        }
    }
}

fn remove_all(namespaces: &[Namespace], dir: &Path) {
    // Removal goes on to the end: what is left is at worst named after this lab.
    for namespace in namespaces.iter().rev() {
        drop(namespace.remove());
    }
    drop(run(Command::new("umount").arg(dir.join(BPFFS))));
    drop(fs::remove_dir_all(dir));
}

fn build_node(made: &mut Made, id: &str, router: &Namespace, side: Side) -> Result<Node, LabError> {
    let namespace = made.namespace(&format!("tl-{id}-{side}"))?;
    forward(&namespace)?;
    let net = side.number();
    // A bridge without an address of its own takes the lowest of its ports', and changes it when that port goes: whoever
    // had learned the old one speaks to nobody then.
    namespace.ip(&format!(
        "link add br0 address 02:00:0a:0a:{net:02x}:01 type bridge mcast_snooping 0\n\
         link set br0 up\n\
         addr add 10.10.{net}.1/24 dev br0\n\
         addr add fd00:10:{net}::1/64 dev br0 nodad\n\
         link add up0 type veth peer name to-{side} netns {}\n\
         link set up0 up\n\
         addr add 10.200.{net}.2/24 dev up0\n\
         addr add fd00:200:{net}::2/64 dev up0 nodad\n",
        router.name()
    ))?;
    router.ip(&format!(
        "link set to-{side} up\n\
         addr add 10.200.{net}.1/24 dev to-{side}\n\
         addr add fd00:200:{net}::1/64 dev to-{side} nodad\n\
         route add 10.10.{net}.0/24 via 10.200.{net}.2\n\
         route add fd00:10:{net}::/64 via fd00:200:{net}::2\n"
    ))?;
    namespace.ip(&format!(
        "route add default via 10.200.{net}.1\n\
         route add ::/0 via fd00:200:{net}::1\n"
    ))?;
    Ok(Node { side, namespace, pus: 0 })
}

fn forward(namespace: &Namespace) -> Result<(), LabError> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")
}

fn random_id() -> Result<String, LabError> {
    let mut bytes = [0_u8; 3];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(LabError::io("reading random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
