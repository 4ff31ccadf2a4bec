//! What can go wrong, by operation.

use std::io;
use std::path::PathBuf;

use trireme_netns::{LinkError, NamespaceError};

use crate::Slot;

/// The loader's own account of a failure.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a plane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The instance name cannot be a file name.
    #[error("instance name {0:?} must be 1 to 32 of a-z A-Z 0-9 - _")]
    Instance(String),
    /// A map size cannot be.
    #[error("{field} must be {must}")]
    Size {
        /// The size.
        field: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A privilege is missing.
    #[error(
        "{missing} is missing: run as root, or grant CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN"
    )]
    Privilege {
        /// The capability.
        missing: &'static str,
    },
    /// The kernel is too old.
    #[error("kernel {found} has no {feature}: at least {needed} is needed, or use the nfqueue data path")]
    Kernel {
        /// Running kernel.
        found: String,
        /// Oldest kernel that works.
        needed: &'static str,
        /// What is missing.
        feature: &'static str,
    },
    /// No BPF file system.
    #[error("no BPF file system at {path} and none can be mounted: mount -t bpf bpf {path}")]
    BpfFs {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The directory of pins cannot be used.
    #[error("cannot use {path}")]
    Pins {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another process holds the instance.
    #[error("instance {0} is in use by another process: stop it, or choose another instance name")]
    InUse(String),
    /// A pin in our place is not ours.
    #[error(
        "{path} is {found}, not {wanted}: someone else pinned it; remove it or choose another instance name"
    )]
    Foreign {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// Pins of another version of the layouts cannot be taken over.
    #[error(
        "cannot take over {path}, pins of ABI version {found} (this program speaks {own}): clean up the instance with the program that made them"
    )]
    OtherAbi {
        /// Directory of the pins.
        path: PathBuf,
        /// Their version.
        found: u32,
        /// Our version.
        own: u32,
        /// What stands against it.
        #[source]
        source: Cause,
    },
    /// The kernel has no memory for a map.
    #[error(
        "no memory for map {map} of {entries} entries: lower its size, or raise the memory limit of the service"
    )]
    Memory {
        /// The map.
        map: String,
        /// Its size.
        entries: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the programs or maps.
    #[error("the kernel refuses {what}")]
    Load {
        /// Program or map.
        what: String,
        /// The loader's account.
        #[source]
        source: Cause,
    },
    /// Way back for packets cannot be built.
    #[error("cannot build the way back for packets from a PU")]
    Injector(#[from] InjectorError),
    /// The namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A map cannot be read.
    #[error(transparent)]
    Plane(#[from] PlaneError),
}

/// Why the private veth pair could not be built.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// A link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The program.
    #[error("the kernel refuses the program of the injector")]
    Program(#[source] Cause),
    /// A socket or setting.
    #[error("cannot set up {what}")]
    Io {
        /// What.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Why a PU could not be attached; nothing of the attempt is left.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The slot is out of range.
    #[error("slot {0} is not below 2^31")]
    Slot(Slot),
    /// The slot is taken.
    #[error("slot {slot} is attached to {other}: detach it first")]
    SlotTaken {
        /// The slot.
        slot: Slot,
        /// Its interface.
        other: String,
    },
    /// The interface is taken.
    #[error("interface {name} belongs to slot {owner}")]
    InterfaceTaken {
        /// The interface.
        name: String,
        /// Its slot.
        owner: Slot,
    },
    /// The namespace path cannot be recorded.
    #[error("namespace path {0} must be UTF-8 of at most 215 bytes")]
    Path(PathBuf),
    /// Not a device the programs can read.
    #[error("interface {0} has no Ethernet header: only Ethernet devices can be the edge of a PU")]
    NotEthernet(String),
    /// The interface is absent or cannot be read.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The namespace cannot be used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Way back for packets cannot be built.
    #[error("cannot build the way back for packets to the PU")]
    Injector(#[from] InjectorError),
    /// A socket.
    #[error("cannot open a packet socket")]
    Socket(#[source] io::Error),
    /// The program cannot be attached or pinned.
    #[error("cannot attach {what} to {name}")]
    Program {
        /// What.
        what: &'static str,
        /// The interface.
        name: String,
        /// The loader's account.
        #[source]
        source: Cause,
    },
    /// A map.
    #[error(transparent)]
    Plane(#[from] PlaneError),
}

/// Why a PU could not be detached completely; everything that could be removed is.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// There is no such PU.
    #[error("slot {0} is not attached")]
    NotAttached(Slot),
    /// Some of it stayed.
    #[error("slot {slot} is not completely detached: {}", list(problems))]
    Incomplete {
        /// The slot.
        slot: Slot,
        /// One account per thing that stayed.
        problems: Vec<Cause>,
    },
}

/// Why an operation on the maps or rings failed.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// There is no such PU.
    #[error("slot {0} is not attached")]
    NotAttached(Slot),
    /// The map is full.
    #[error("map {map} is full: raise its size")]
    Full {
        /// The map.
        map: &'static str,
    },
    /// The kernel refused.
    #[error("cannot access map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// The loader's account.
        #[source]
        source: Cause,
    },
    /// Token and credential are longer than the programs can attach.
    #[error(
        "token and credential of {length} bytes are too long to be attached by the programs, which take {most}"
    )]
    TooLong {
        /// Bytes of both.
        length: usize,
        /// Most bytes of both.
        most: usize,
    },
    /// Waiting for packets failed.
    #[error("cannot wait for packets")]
    Poll(#[source] io::Error),
}

/// Why the connections that a PU has already could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    /// There is no such PU.
    #[error("slot {0} is not attached")]
    NotAttached(Slot),
    /// No namespace holds the other end of the PU's interface.
    #[error("namespace not found: none below /run/netns and /proc holds the other end of {0}")]
    NamespaceNotFound(String),
    /// The PU's interface.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The PU's namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused the list.
    #[error(transparent)]
    Sockets(#[from] trireme_sock_diag::SockDiagError),
}

/// Why clean-up stopped or stayed incomplete.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The instance name cannot be a file name.
    #[error("instance name {0:?} must be 1 to 32 of a-z A-Z 0-9 - _")]
    Instance(String),
    /// Another process holds the instance.
    #[error("instance {0} is in use by another process: stop it first")]
    InUse(String),
    /// Some of it stayed.
    #[error("clean-up is incomplete: {}", list(.0))]
    Incomplete(Vec<Cause>),
}

fn list(problems: &[Cause]) -> String {
    let texts: Vec<String> = problems.iter().map(|problem| chain(problem.as_ref())).collect();
    texts.join("; ")
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
