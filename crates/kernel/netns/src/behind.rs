//! The namespace behind the host side of a veth.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::{Link, LinkError, Links, Namespace};

/// Where namespaces have names: those of iproute2 and of container runtimes.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Finds the namespace that holds the other end of `link`, a link of the calling thread's namespace: among those with
/// a name and those of running processes.
///
/// The kernel says which one it is, so that no other namespace is taken for it whose interfaces have the same numbers.
///
/// # Errors
/// [`LinkError::Connect`] and [`LinkError::Refused`] if the kernel does not answer.
pub fn behind(link: &Link) -> Result<Option<Namespace>, LinkError> {
    let Some(wanted) = link.lower_namespace else { return Ok(None) };
    let links = Links::connect()?;
    for namespace in shown() {
        if links.number_of(&namespace)? == Some(wanted) {
            return Ok(Some(namespace));
        }
    }
    Ok(None)
}

/// Returns every network namespace that has a name or a process, each once.
#[must_use]
pub fn reachable() -> Vec<Namespace> {
    shown().collect()
}

fn shown() -> impl Iterator<Item = Namespace> {
    let mut seen = HashSet::new();
    candidates().into_iter().filter_map(move |path| {
        // Processes and names come and go.
        let found = fs::metadata(&path).ok()?;
        let new = seen.insert((found.dev(), found.ino()));
        new.then(|| Namespace::open(&path).ok()).flatten()
    })
}

fn candidates() -> Vec<PathBuf> {
    let named = NAMED.iter().flat_map(|directory| entries(Path::new(directory)));
    let processes = entries(Path::new("/proc")).into_iter().filter(|path| is_process(path));
    named.chain(processes.map(|path| path.join("ns/net"))).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    // A directory that is absent has no entries.
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_process(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    /// A process that holds a namespace, ended with this.
    struct Holder(std::process::Child);

    impl Holder {
        fn start(namespace: &Namespace) -> Self {
            Self(namespace.run(|| std::process::Command::new("sleep").arg("60").spawn().unwrap()).unwrap())
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn namespace_behind_a_veth_is_found_among_those_of_processes_and_of_names() {
        let (node, inside, other) = (
            Namespace::anonymous().unwrap(),
            Namespace::anonymous().unwrap(),
            Namespace::anonymous().unwrap(),
        );
        let name = format!("trireme-behind-{}", std::process::id());
        let ip = |verb| std::process::Command::new("ip").args(["netns", verb, &name]).status().unwrap();
        assert!(ip("add").success());
        let named = Namespace::open(&Path::new("/run/netns").join(&name)).unwrap();
        let hosts: Vec<Link> = node
            .run(|| {
                let links = Links::connect().unwrap();
                // Interfaces of the same numbers in every namespace.
                let make = |host: &str, into: &Namespace| {
                    let (link, end) = links.create_veth(host, "eth0").unwrap();
                    links.move_into(end.index, into).unwrap();
                    links.by_index(link.index).unwrap()
                };
                vec![make("host0", &inside), make("host1", &other), make("host2", &named)]
            })
            .unwrap();
        let _holders = [Holder::start(&inside), Holder::start(&other)];

        let found =
            node.run(|| hosts.iter().map(|link| behind(link).unwrap().unwrap().id()).collect::<Vec<_>>());

        assert!(ip("del").success());
        assert_eq!(found.unwrap(), [inside.id(), other.id(), named.id()]);
    }

    #[test]
    fn namespace_that_nobody_shows_is_not_found() {
        let (node, inside) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
        node.run(|| {
            let links = Links::connect().unwrap();
            let (host, end) = links.create_veth("host0", "eth0").unwrap();
            links.move_into(end.index, &inside).unwrap();

            assert!(behind(&links.by_index(host.index).unwrap()).unwrap().is_none());
            let loopback = links.by_name("lo").unwrap();
            assert!(behind(&loopback).unwrap().is_none());
        })
        .unwrap();
    }
}
