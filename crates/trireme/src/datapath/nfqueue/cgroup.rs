//! Cgroups of version 2 as units name them, and as rules and sockets know them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Where `nft` looks for cgroups.
const SEEN: &str = "/sys/fs/cgroup";

/// A cgroup that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroup {
    /// Its directory.
    path: PathBuf,
    /// The number of the kernel's: its inode.
    pub(super) id: u64,
    /// How deep it is below the root of the hierarchy.
    pub(super) level: u32,
    /// Its path below [`SEEN`].
    pub(super) name: String,
}

/// Why a cgroup cannot be a unit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    #[error(
        "cgroups of version 2 are not mounted here: mount -t cgroup2 none /sys/fs/cgroup, or start the kernel without \
         cgroup_no_v1"
    )]
    NotMounted,
    #[error(
        "cgroups of version 2 are mounted at {}, and nft looks for them below {SEEN} only: mount them there as well",
        .0.display()
    )]
    MountedElsewhere(PathBuf),
    #[error("cannot read {0}")]
    Read(&'static str, #[source] io::Error),
    #[error("there is no cgroup {}: create it before the agent starts, or correct its name", .0.display())]
    Absent(PathBuf),
    #[error(
        "{} is not below {}: name the cgroup by its path there, such as system.slice/web.service",
        .path.display(), .root.display()
    )]
    Outside { path: PathBuf, root: PathBuf },
    #[error("{} is the cgroup of all processes: name one below it", .0.display())]
    Root(PathBuf),
    #[error("the cgroup {} has the agent itself in it: start the agent in another one", .0.display())]
    OfTheAgent(PathBuf),
    #[error("the path of the cgroup {0:?} has a letter that rules cannot have: rename it")]
    Letters(PathBuf),
    #[error("the cgroup {} is another one by now", .0.display())]
    Changed(PathBuf),
}

/// Where the hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    /// The cgroup that is the root of the mount.
    root: PathBuf,
}

impl Cgroup {
    /// Finds a cgroup by its path: relative to the root of the hierarchy, or that of its directory.
    pub(super) fn find(written: &Path) -> Result<Self, CgroupError> {
        let mount = Mount::find(&read("/proc/self/mountinfo")?)?;
        let found = Self::below(&mount, written)?;
        let own = own(&read("/proc/self/cgroup")?).map(|own| mount.at.join(own));
        if own.is_some_and(|own| own.starts_with(&found.path)) {
            return Err(CgroupError::OfTheAgent(found.path));
        }
        Ok(found)
    }

    fn below(mount: &Mount, written: &Path) -> Result<Self, CgroupError> {
        let outside = |path: &Path| CgroupError::Outside { path: path.to_owned(), root: mount.at.clone() };
        if written.components().any(|part| part == Component::ParentDir) {
            return Err(outside(written));
        }
        let path = mount.at.join(written);
        if !path.starts_with(&mount.at) {
            return Err(outside(&path));
        }
        let found = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => found,
            Ok(_) | Err(_) => return Err(CgroupError::Absent(path)),
        };
        // No link leads elsewhere.
        let path = fs::canonicalize(&path).map_err(|_| CgroupError::Absent(path))?;
        let Ok(inner) = path.strip_prefix(&mount.at) else { return Err(outside(&path)) };
        let whole = mount.root.join(inner);
        let level = whole.components().filter(|part| matches!(part, Component::Normal(_)));
        let level = u32::try_from(level.count()).unwrap_or(u32::MAX);
        if inner.as_os_str().is_empty() {
            return Err(CgroupError::Root(path));
        }
        let name = path.strip_prefix(SEEN).map_err(|_| CgroupError::MountedElsewhere(mount.at.clone()))?;
        let name = name.to_str().map(str::to_owned).ok_or_else(|| CgroupError::Letters(path.clone()))?;
        Ok(Self { path, id: found.ino(), level, name })
    }

    /// Whether it is there still.
    pub(super) fn check(&self) -> Result<(), CgroupError> {
        match fs::metadata(&self.path) {
            Ok(found) if found.ino() == self.id => Ok(()),
            Ok(_) => Err(CgroupError::Changed(self.path.clone())),
            Err(_) => Err(CgroupError::Absent(self.path.clone())),
        }
    }

    /// Numbers of this cgroup and of those in it, without `others` and what is in them.
    pub(super) fn all(&self, others: &HashSet<u64>) -> HashSet<u64> {
        let (mut all, mut open) = (HashSet::from([self.id]), vec![self.path.clone()]);
        while let Some(path) = open.pop() {
            // Cgroups come and go.
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                let Some(found) = entry.metadata().ok().filter(fs::Metadata::is_dir) else { continue };
                if !others.contains(&found.ino()) && all.insert(found.ino()) {
                    open.push(entry.path());
                }
            }
        }
        all
    }

    pub(super) fn describe(&self) -> String {
        format!("cgroup {}", self.path.display())
    }
}

/// Whether a cgroup of this name below [`SEEN`] has this number.
pub(super) fn is_there(name: &str, id: u64) -> bool {
    fs::metadata(Path::new(SEEN).join(name)).is_ok_and(|found| found.ino() == id)
}

fn read(path: &'static str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|error| CgroupError::Read(path, error))
}

impl Mount {
    /// Of several mounts the first that nft sees.
    fn find(mounts: &str) -> Result<Self, CgroupError> {
        let mut all: Vec<Self> = mounts.lines().filter_map(Self::parse).collect();
        all.sort_by_key(|mount| !mount.at.starts_with(SEEN));
        let mount = all.into_iter().next().ok_or(CgroupError::NotMounted)?;
        if mount.at.starts_with(SEEN) { Ok(mount) } else { Err(CgroupError::MountedElsewhere(mount.at)) }
    }

    /// Reads a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    fn parse(line: &str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3);
        let (root, at) = (words.next()?, words.next()?);
        // A mount of a cgroup that is not below the own root of cgroups has no depth.
        let is_wanted = kind.starts_with("cgroup2 ") && !root.contains("..");
        is_wanted.then(|| Self { at: unescaped(at), root: unescaped(root) })
    }
}

/// The own cgroup, relative to the root of the hierarchy (cgroups(7)).
fn own(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// A path without `\040` for a space and the like.
fn unescaped(text: &str) -> PathBuf {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let octal = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => plain.push(char::from(byte)),
            None => plain.push('\\'),
        }
        rest = if octal.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    plain.push_str(rest);
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "19 40 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
20 41 0:38 / /mnt/c\\040two rw,relatime shared:5 - cgroup2 cgroup2 rw
21 41 0:38 /outer /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw
";

    #[test]
    fn of_several_mounts_the_one_that_rules_can_name_is_taken() {
        let mount = Mount::find(HYBRID).unwrap();
        assert_eq!(mount, Mount { at: "/sys/fs/cgroup/unified".into(), root: "/outer".into() });
        let elsewhere: String = HYBRID.lines().take(2).flat_map(|line| [line, "\n"]).collect();
        let error = Mount::find(&elsewhere).unwrap_err().to_string();
        assert!(
            error.contains("mounted at /mnt/c two, and nft looks for them below /sys/fs/cgroup"),
            "{error}"
        );
        let old = HYBRID.lines().next().unwrap();
        assert!(matches!(Mount::find(old), Err(CgroupError::NotMounted)));
        assert_eq!(unescaped("a\\134b\\x"), Path::new("a\\b\\x"));
    }

    #[test]
    fn what_is_not_below_the_root_is_refused() {
        let mount = Mount { at: "/sys/fs/cgroup".into(), root: "/".into() };
        let refused = |path: &str| Cgroup::below(&mount, Path::new(path)).unwrap_err();
        for path in ["../etc", "a/../../b", "/etc", "/sys/fs/cgroupie"] {
            assert!(matches!(refused(path), CgroupError::Outside { .. }), "{path}");
        }
        for path in ["", "/sys/fs/cgroup", "/sys/fs/cgroup/", "."] {
            assert!(matches!(refused(path), CgroupError::Root(_)), "{path}: {:?}", refused(path));
        }
        assert!(matches!(refused("trireme-absent"), CgroupError::Absent(_)));
        assert_eq!(own("4:memory:/x\n0::/system.slice/a.service\n"), Some("system.slice/a.service"));
    }

    #[test]
    fn numbers_of_a_cgroup_are_those_of_all_in_it_but_of_other_units() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        let number = |name: &str| fs::metadata(path.join(name)).unwrap().ino();
        for name in ["a/b", "a/c/d", "e"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        let cgroup = Cgroup { path: path.join("a"), id: number("a"), level: 1, name: String::new() };

        let all = cgroup.all(&HashSet::from([number("a/c")]));

        assert_eq!(all, HashSet::from([number("a"), number("a/b")]));
        cgroup.check().unwrap();
        let other = Cgroup { id: 0, ..cgroup.clone() };
        assert!(matches!(other.check(), Err(CgroupError::Changed(_))));
        drop(folder);
        assert!(matches!(cgroup.check(), Err(CgroupError::Absent(_))));
    }
}
