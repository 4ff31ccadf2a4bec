//! The socket file: one agent per path, 0600, foreign users turned away.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent answers at the path.
    #[error("another agent answers on {}: stop it, or give this one a socket (and state directory) of its own", .0.display())]
    AlreadyServed(PathBuf),
    /// Something that is not a socket has the path.
    #[error("{} exists and is not a socket: remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused an operation.
    #[error("cannot {action} {}", .path.display())]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Checks that nobody serves `path`; changes nothing.
///
/// # Errors
/// [`BindError`] as [`Server::bind`](crate::Server::bind) would give it.
pub fn probe(path: &Path) -> Result<(), BindError> {
    let kernel = |action, source| BindError::Kernel { action, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(kernel("look at", error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::AlreadyServed(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(kernel("connect to", error)),
    }
}

/// A listener that hands out connections of root and of the socket's owner only.
#[derive(Debug)]
pub(crate) struct OwnListener {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl OwnListener {
    /// Replaces a socket left by a dead agent.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        probe(path)?;
        let kernel =
            |action, path: &Path, source| BindError::Kernel { action, path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| kernel("create", parent, error))?;
        }
        // Bound under a name of its own and renamed once its mode is right: it never stands open at `path`.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let listener = UnixListener::bind(&fresh).map_err(|error| kernel("bind", path, error))?;
        let made = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::metadata(&fresh))
            .and_then(|meta| std::fs::rename(&fresh, path).map(|()| meta.uid()));
        match made {
            Ok(owner) => Ok(Self { listener, path: path.to_owned(), owner }),
            Err(error) => {
                // The first error is the one to report.
                drop(std::fs::remove_file(&fresh));
                Err(kernel("protect", path, error))
            }
        }
    }

    const fn admits(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }

    fn judge(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if self.admits(peer.uid()) => true,
            Ok(peer) => {
                warn!(uid = peer.uid(), "api connection of a foreign user refused");
                false
            }
            Err(error) => {
                warn!(%error, "api connection without credentials refused");
                false
            }
        }
    }
}

impl Drop for OwnListener {
    fn drop(&mut self) {
        // Gone already when a second agent replaced a socket it took for stale; nothing to do then.
        drop(std::fs::remove_file(&self.path));
    }
}

const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Listener for OwnListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if self.judge(&stream) {
                return (stream, address);
            }
            // Best effort: the refusal is the closed connection.
            drop(stream.try_write(REFUSAL));
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
