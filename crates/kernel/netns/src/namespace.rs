//! A network namespace and its identity.

#![expect(unsafe_code, reason = "unshare and the question for a namespace's type have no safe form")]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Identity of a namespace: the inode that all its names lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId {
    /// Device number of the file system of namespaces.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// A network namespace, kept alive by the descriptor.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    id: NamespaceId,
}

impl Namespace {
    /// Returns the namespace of the calling thread.
    ///
    /// # Errors
    /// [`NamespaceError::Open`] if `/proc` is not mounted.
    pub fn current() -> Result<Self, NamespaceError> {
        Self::open(Path::new(OWN))
    }

    /// Opens the namespace that `path` names, such as `/run/netns/blue` or `/proc/42/ns/net`.
    ///
    /// # Errors
    /// [`NamespaceError::Open`] if it cannot be opened, [`NamespaceError::NotNetwork`] if it is anything but a
    /// network namespace.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let open = |source| NamespaceError::Open { path: path.to_path_buf(), source };
        let fd: OwnedFd = File::open(path).map_err(open)?.into();
        if !is_network(fd.as_fd()) {
            return Err(NamespaceError::NotNetwork { path: path.to_path_buf() });
        }
        let id = id_of(fd.as_fd()).map_err(open)?;
        Ok(Self { fd, id })
    }

    /// Opens the namespace that `path` names and requires it to be `expected`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`NamespaceError::Changed`] if another namespace stands there by now.
    pub fn open_verified(path: &Path, expected: NamespaceId) -> Result<Self, NamespaceError> {
        let namespace = Self::open(path)?;
        if namespace.id != expected {
            return Err(NamespaceError::Changed { expected, found: namespace.id });
        }
        Ok(namespace)
    }

    /// Creates a namespace without a name; it ends with the last descriptor and socket in it.
    ///
    /// # Errors
    /// [`NamespaceError::Create`] without the privilege to.
    pub fn anonymous() -> Result<Self, NamespaceError> {
        let created = thread::scope(|scope| {
            let worker = scope.spawn(|| -> Result<Self, NamespaceError> {
                // SAFETY: CLONE_NEWNET moves this thread alone into a new network namespace; it shares no
                // descriptor table or file-system state with that call, and the thread ends right after it.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                    .map_err(|error| NamespaceError::Create(error.into()))?;
                Self::current()
            });
            worker.join()
        });
        created.unwrap_or_else(|_| Err(NamespaceError::Worker))
    }

    /// Returns another descriptor of the same namespace.
    ///
    /// # Errors
    /// [`NamespaceError::Duplicate`] if the process has no descriptor left.
    pub fn duplicate(&self) -> Result<Self, NamespaceError> {
        let fd = self.fd.try_clone().map_err(NamespaceError::Duplicate)?;
        Ok(Self { fd, id: self.id })
    }

    /// Identity of the namespace.
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Runs `work` on a short-lived thread inside the namespace, after verifying the inode the thread is in.
    ///
    /// # Errors
    /// [`NamespaceError::Enter`] without the privilege to, [`NamespaceError::Changed`] if the thread finds itself
    /// elsewhere, [`NamespaceError::Worker`] if `work` panicked.
    pub fn run<T, F>(&self, work: F) -> Result<T, NamespaceError>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            worker.join()
        })
        .unwrap_or_else(|_| Err(NamespaceError::Worker))
    }

    /// Moves the calling thread for good; only for threads that end inside the namespace.
    fn enter(&self) -> Result<(), NamespaceError> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| NamespaceError::Enter { id: self.id, source: error.into() })?;
        let found = Self::current()?.id;
        if found != self.id {
            return Err(NamespaceError::Changed { expected: self.id, found });
        }
        Ok(())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The path cannot be opened.
    #[error("cannot open network namespace {path}")]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The path leads to something else.
    #[error("{path} is not a network namespace")]
    NotNetwork {
        /// The path.
        path: PathBuf,
    },
    /// The namespace is not the one that was meant.
    #[error("expected network namespace {expected}, found {found}")]
    Changed {
        /// The namespace that was meant.
        expected: NamespaceId,
        /// The namespace that is there.
        found: NamespaceId,
    },
    /// No descriptor is left.
    #[error("cannot duplicate the descriptor of a network namespace")]
    Duplicate(#[source] io::Error),
    /// No new namespace could be created.
    #[error("cannot create a network namespace: CAP_SYS_ADMIN is needed")]
    Create(#[source] io::Error),
    /// The namespace could not be entered.
    #[error("cannot enter network namespace {id}: CAP_SYS_ADMIN is needed")]
    Enter {
        /// The namespace.
        id: NamespaceId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The work inside the namespace panicked.
    #[error("the thread inside the network namespace ended early")]
    Worker,
}

/// Asks for the type of the namespace; a file that is no namespace does not know the question.
///
/// The link in `/proc/self/fd` does not tell: it shows the path of a namespace that is mounted on a file, as
/// iproute2 does it. Source: ioctl_nsfs(2), `NS_GET_NSTYPE`.
fn is_network(fd: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd as _;
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the descriptor is borrowed and therefore open for the length of the call; NS_GET_NSTYPE takes no
    // argument and writes no memory. JUSTIFICATION: no safe form of this ioctl exists.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

fn id_of(fd: BorrowedFd<'_>) -> io::Result<NamespaceId> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(NamespaceId { device: stat.st_dev, inode: stat.st_ino })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn closure_runs_inside_and_the_caller_stays_outside() {
        let before = Namespace::current().unwrap().id();
        let other = Namespace::anonymous().unwrap();

        let inside = other.run(|| Namespace::current().unwrap().id()).unwrap();

        assert_eq!(inside, other.id());
        assert_ne!(inside, before);
        assert_eq!(Namespace::current().unwrap().id(), before);
    }

    #[test]
    fn file_that_is_no_network_namespace_is_refused() {
        let uts = Namespace::open(Path::new("/proc/self/ns/uts"));
        let absent = Namespace::open(Path::new("/run/netns/trireme-absent"));

        assert!(matches!(uts, Err(NamespaceError::NotNetwork { .. })), "{uts:?}");
        assert!(matches!(absent, Err(NamespaceError::Open { .. })), "{absent:?}");
    }

    #[test]
    fn namespace_mounted_on_a_file_is_opened() {
        let name = format!("trireme-test-{}", std::process::id());
        let ip = |verb| std::process::Command::new("ip").args(["netns", verb, &name]).status().unwrap();
        assert!(ip("add").success());

        let opened = Namespace::open(&Path::new("/run/netns").join(&name));

        assert!(ip("del").success());
        assert_ne!(opened.unwrap().id(), Namespace::current().unwrap().id());
    }

    #[test]
    fn another_namespace_under_the_same_path_is_noticed() {
        let other = Namespace::anonymous().unwrap();

        let opened = Namespace::open_verified(Path::new(OWN), other.id());

        assert!(matches!(opened, Err(NamespaceError::Changed { .. })), "{opened:?}");
    }

    #[test]
    fn panic_inside_is_an_error_outside() {
        let other = Namespace::anonymous().unwrap();

        let result = other.run(|| "no number".parse::<u8>().unwrap());

        assert!(matches!(result, Err(NamespaceError::Worker)), "{result:?}");
    }
}
