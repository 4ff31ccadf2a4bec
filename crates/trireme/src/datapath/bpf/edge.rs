//! From the edge as a monitor names it to the place where programs are attached.

use std::path::{Path, PathBuf};

use trireme_netns::{Link, LinkError, Links, Namespace, NamespaceError, host_side};

use crate::Edge;

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
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Finds the place; a unit in a namespace is caught at the host side of its veth if it has one here.
///
/// Must run on a thread outside of any asynchronous runtime.
pub(super) fn find(edge: &Edge) -> Result<trireme_bpf::Edge, EdgeError> {
    match edge {
        Edge::Interface(name) => match Links::connect()?.by_name(name) {
            Ok(_) => Ok(trireme_bpf::Edge::Interface(name.clone())),
            Err(LinkError::Absent(name)) => Err(EdgeError::Absent(name)),
            Err(error) => Err(error.into()),
        },
        Edge::Netns { path, device } => in_namespace(path, device.as_deref()),
    }
}

fn in_namespace(path: &Path, device: Option<&str>) -> Result<trireme_bpf::Edge, EdgeError> {
    let namespace = |source| EdgeError::Namespace { path: path.to_owned(), source };
    let inside = Namespace::open(path).map_err(namespace)?;
    let device = match device {
        Some(device) => device.to_owned(),
        None => only_device(&inside, path)?,
    };
    match host_side(&inside, &device) {
        Ok(Some(link)) => Ok(trireme_bpf::Edge::Interface(link.name)),
        Ok(None) => Ok(trireme_bpf::Edge::Namespace { path: path.to_owned(), device }),
        Err(LinkError::Absent(name)) => {
            Err(EdgeError::Absent(format!("{name} in the network namespace {}", path.display())))
        }
        Err(error) => Err(error.into()),
    }
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
