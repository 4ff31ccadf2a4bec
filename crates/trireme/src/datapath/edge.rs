//! From the edge as a monitor names it to the interface or namespace where packets are caught.

use std::path::{Path, PathBuf};

use trireme_netns::{Link, LinkError, Links, Namespace, NamespaceError};

use super::nfqueue::CgroupError;

/// Why an edge cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum EdgeError {
    #[error("there is no interface {0}: create it before the agent starts, or correct its name")]
    Absent(String),
    #[error("the network namespace {} cannot be used", .path.display())]
    Namespace {
        path: PathBuf,
        #[source]
        source: NamespaceError,
    },
    #[error("in the network namespace {} there is no device to enforce: name one with `device`", .0.display())]
    NoDevice(PathBuf),
    #[error("in the network namespace {} there are several devices ({names}): name one with `device`", .path.display())]
    SeveralDevices { path: PathBuf, names: String },
    #[error(
        "the network namespace behind interface {0} is not found: name it with `netns`, or keep a process in it"
    )]
    NothingBehind(String),
    #[error(
        "the cgroup {} can be enforced by netfilter queues only: set kind = \"nfqueue\" in [datapath]", .0.display()
    )]
    NeedsQueues(PathBuf),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("the agent's own network namespace cannot be used")]
    Own(#[source] NamespaceError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// An interface of this namespace.
pub(super) fn interface(name: &str) -> Result<Link, EdgeError> {
    match Links::connect()?.by_name(name) {
        Ok(link) => Ok(link),
        Err(LinkError::Absent(name)) => Err(EdgeError::Absent(name)),
        Err(error) => Err(error.into()),
    }
}

/// A network namespace by its file.
pub(super) fn namespace(path: &Path) -> Result<Namespace, EdgeError> {
    Namespace::open(path).map_err(|source| EdgeError::Namespace { path: path.to_owned(), source })
}

/// The device that was named, else the only one inside.
///
/// Must run on a thread outside of any asynchronous runtime.
pub(super) fn device(inside: &Namespace, path: &Path, named: Option<&str>) -> Result<String, EdgeError> {
    named.map_or_else(|| only_device(inside, path), |name| Ok(name.to_owned()))
}

fn only_device(inside: &Namespace, path: &Path) -> Result<String, EdgeError> {
    let links: Vec<Link> = inside
        .run(|| Links::connect()?.all())
        .map_err(|source| EdgeError::Namespace { path: path.to_owned(), source })??;
    let mut names: Vec<String> = links
        .into_iter()
        .map(|link| link.name)
        .filter(|name| name != "lo" && !is_tunnel_base(name))
        .collect();
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (None, _) => Err(EdgeError::NoDevice(path.to_owned())),
        (Some(last), false) => {
            names.push(last);
            Err(EdgeError::SeveralDevices { path: path.to_owned(), names: names.join(", ") })
        }
    }
}

/// Devices that loaded tunnel modules put into every new namespace.
fn is_tunnel_base(name: &str) -> bool {
    ["tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"]
        .contains(&name)
}
