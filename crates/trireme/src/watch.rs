//! Tells when a file has changed, without delay.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::controller::chain;

/// Whoever replaces or closes a file has finished writing it. Reading goes on where the kernel tells nothing (network
/// file systems): there a file counts as whole when it looks the same at two looks in a row.
const LOOK: Duration = Duration::from_millis(500);

/// Watches one file, which need not exist.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    events: Option<AsyncFd<OwnedFd>>,
    /// What the caller has read.
    reported: Option<Stamp>,
    seen: Option<Stamp>,
}

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// `None` while there is no such file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { inode: meta.ino(), len: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) })
    }
}

impl Watch {
    /// Begins to watch; `known` is what the file looked like before the caller read it.
    ///
    /// Must be called in a runtime whose I/O is enabled.
    pub(crate) fn new(path: &Path, known: Option<Stamp>) -> Self {
        let mut watch = Self { path: path.to_owned(), events: None, reported: known, seen: known };
        watch.listen();
        watch
    }

    /// True as soon as the file may have other content than at the last call, false when `stop` is cancelled first.
    pub(crate) async fn changed_before(&mut self, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => false,
            () = self.changed() => true,
        }
    }

    /// Ends when the file may have other content than at the last call.
    ///
    /// # Cancel safety
    /// A drop loses nothing that cannot be seen at the next look.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::select! {
                finished = finished(self.events.as_ref(), &self.path) => match finished {
                    Ok(true) => break,
                    // Another file of the folder; a link on the way to this one may have been turned.
                    Ok(false) if Stamp::of(&self.path) != self.reported => break,
                    Ok(false) => {}
                    Err(error) => {
                        debug!(file = %self.path.display(), error = chain(&error), "looked at from time to time");
                        self.events = None;
                    }
                },
                () = tokio::time::sleep(LOOK) => {
                    let now = Stamp::of(&self.path);
                    let settled = now == std::mem::replace(&mut self.seen, now);
                    if settled && now != self.reported {
                        break;
                    }
                    if self.events.is_none() {
                        self.listen();
                    }
                }
            }
        }
        self.reported = Stamp::of(&self.path);
        self.seen = self.reported;
    }

    fn listen(&mut self) {
        self.events = match listen(&self.path) {
            Ok(events) => Some(events),
            Err(error) => {
                debug!(file = %self.path.display(), error = chain(&error), "changes are not told");
                None
            }
        };
    }
}

/// The folder is watched, not the file: a file that is replaced is another one.
#[expect(
    deprecated,
    reason = "an owned descriptor stays open, which is all that the unsafe replacement asks for"
)]
fn listen(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let wanted = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    inotify::add_watch(&events, folder(path), wanted)?;
    AsyncFd::new(events)
}

/// Waits for events; whether one is about the file itself. An error: the folder can be watched no longer.
async fn finished(events: Option<&AsyncFd<OwnedFd>>, path: &Path) -> io::Result<bool> {
    let Some(events) = events else { return std::future::pending().await };
    let mut ready = events.readable().await?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(events.get_ref(), &mut buffer);
    let mut ours = false;
    loop {
        match reader.next() {
            Ok(event) => {
                let gone = ReadFlags::IGNORED | ReadFlags::UNMOUNT;
                if event.events().intersects(gone) || event.file_name().is_none() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                ours |= name == path.file_name();
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                ready.clear_ready();
                return Ok(ours);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The folder that a file lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Far below the pause between two looks.
    const AT_ONCE: Duration = Duration::from_millis(200);

    async fn told(watch: &mut Watch, change: impl FnOnce()) -> Duration {
        let start = Instant::now();
        change();
        watch.changed().await;
        start.elapsed()
    }

    #[tokio::test]
    async fn a_change_is_told_at_once_however_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        let other = folder.path().join("other");
        std::fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(&path, Stamp::of(&path));
        let written = told(&mut watch, || std::fs::write(&path, "two").unwrap()).await;
        std::fs::write(&other, "six").unwrap();
        let replaced = told(&mut watch, || std::fs::rename(&other, &path).unwrap()).await;
        let removed = told(&mut watch, || std::fs::remove_file(&path).unwrap()).await;
        let made = told(&mut watch, || std::fs::write(&path, "two").unwrap()).await;
        for (what, time) in
            [("written", written), ("replaced", replaced), ("removed", removed), ("made", made)]
        {
            assert!(time < AT_ONCE, "{what}: {time:?}");
        }
    }

    #[tokio::test]
    async fn a_link_that_is_turned_is_a_change_and_other_files_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["v1", "v2"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("policy.yaml"), name).unwrap();
        }
        std::os::unix::fs::symlink("v1", at("data")).unwrap();
        std::os::unix::fs::symlink("data/policy.yaml", at("policy.yaml")).unwrap();
        let mut watch = Watch::new(&at("policy.yaml"), Stamp::of(&at("policy.yaml")));
        std::fs::write(at("unrelated"), "x").unwrap();
        let quiet = tokio::time::timeout(AT_ONCE, watch.changed()).await;
        assert!(quiet.is_err(), "another file is no change");
        std::os::unix::fs::symlink("v2", at("data.new")).unwrap();
        let turned = told(&mut watch, || std::fs::rename(at("data.new"), at("data")).unwrap()).await;
        assert!(turned < AT_ONCE, "{turned:?}");
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("late/policy.yaml");
        let mut watch = Watch::new(&path, Stamp::of(&path));
        told(&mut watch, || {
            std::fs::create_dir(folder.path().join("late")).unwrap();
            std::fs::write(&path, "one").unwrap();
        })
        .await;
        tokio::time::timeout(LOOK * 3, watch.changed()).await.unwrap_err();
        let written = told(&mut watch, || std::fs::write(&path, "two").unwrap()).await;
        assert!(written < AT_ONCE, "{written:?}");
    }
}
