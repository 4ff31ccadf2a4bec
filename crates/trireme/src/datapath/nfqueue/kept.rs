//! What a restart has to know again: which epoch a unit's released connections were judged under.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use trireme_flow::{PuSlot, Reason};

const FILE: &str = "nfqueue.json";

/// What is kept, one line for each unit.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    units: BTreeMap<u32, Unit>,
    #[serde(default)]
    host: Host,
    /// The engine's counters, by slot and code of the reason.
    counters: Vec<(u32, u16, u64)>,
}

/// A unit as its rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    /// Inode of its network namespace.
    pub(super) namespace: u64,
    pub(super) epoch: u32,
    /// The value that releases its connections.
    pub(super) released: u32,
}

/// Units of the host, whose rules are in force together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Host {
    /// Inode of the agent's network namespace.
    pub(super) namespace: u64,
    /// Bits of marks that are ours.
    pub(super) field: u32,
    /// The number that releases connections.
    pub(super) released: u32,
    pub(super) units: BTreeMap<u32, HostUnit>,
}

/// A unit of the host as its rules are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostUnit {
    pub(super) number: u32,
    /// Inode of its cgroup.
    pub(super) id: u64,
    /// Its path, as rules have it.
    pub(super) cgroup: String,
    pub(super) level: u32,
    pub(super) epoch: u32,
    pub(super) judged: Option<Judged>,
}

/// What becomes of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Judged {
    pub(super) queue: u16,
    /// They pass while no agent listens.
    pub(super) open: bool,
    /// Those of other protocols than TCP are judged as well.
    pub(super) others: bool,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    text: Text,
}

impl Kept {
    /// A damaged file is begun anew: released connections are judged again then.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(%error, file = FILE, "damaged, begun anew: connections are judged again");
                Text::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Text::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, text })
    }

    pub(super) fn units(&self) -> &BTreeMap<u32, Unit> {
        &self.text.units
    }

    pub(super) fn host(&self) -> &Host {
        &self.text.host
    }

    pub(super) fn put_host(&mut self, host: &Host) -> io::Result<()> {
        if self.text.host == *host {
            return Ok(());
        }
        self.text.host = host.clone();
        self.write()
    }

    pub(super) fn put_unit(&mut self, slot: PuSlot, unit: Unit) -> io::Result<()> {
        if self.text.units.insert(slot.0, unit) == Some(unit) {
            return Ok(());
        }
        self.write()
    }

    pub(super) fn remove_unit(&mut self, slot: PuSlot) -> io::Result<()> {
        self.text.counters.retain(|(counted, ..)| *counted != slot.0);
        self.text.units.remove(&slot.0);
        self.text.host.units.remove(&slot.0);
        self.write()
    }

    pub(super) fn counters(&self) -> BTreeMap<(PuSlot, Reason), u64> {
        let known = |(slot, code, count): &(u32, u16, u64)| {
            Some(((PuSlot(*slot), Reason::from_code(*code)?), *count))
        };
        self.text.counters.iter().filter_map(known).collect()
    }

    pub(super) fn put_counters(&mut self, changed: &[(PuSlot, Reason, u64)]) -> io::Result<()> {
        for (slot, reason, count) in changed {
            let name = (slot.0, reason.code());
            match self.text.counters.iter_mut().find(|(slot, code, _)| (*slot, *code) == name) {
                Some((.., kept)) => *kept = *count,
                None => self.text.counters.push((name.0, name.1, *count)),
            }
        }
        self.write()
    }

    /// As a whole, so that a crash leaves the old or the new one. The machine's memory is enough: rules and marks do not
    /// outlive it either.
    fn write(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&self.text)?)?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found_again_and_a_damaged_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let unit = Unit { namespace: 5, epoch: 7, released: 2 };
        let mut kept = Kept::open(folder.path()).unwrap();
        kept.put_unit(PuSlot(1), unit).unwrap();
        kept.put_unit(PuSlot(2), unit).unwrap();
        let host = host();
        kept.put_host(&host).unwrap();
        kept.put_counters(&[(PuSlot(1), Reason::Accepted, 3), (PuSlot(2), Reason::Stray, 4)]).unwrap();
        kept.put_counters(&[(PuSlot(1), Reason::Accepted, 9)]).unwrap();
        kept.remove_unit(PuSlot(2)).unwrap();

        let kept = Kept::open(folder.path()).unwrap();
        assert_eq!(kept.units(), &BTreeMap::from([(1, unit)]));
        assert_eq!(kept.host(), &host);
        assert_eq!(kept.counters(), BTreeMap::from([((PuSlot(1), Reason::Accepted), 9)]));

        fs::write(folder.path().join(FILE), b"{").unwrap();
        assert!(Kept::open(folder.path()).unwrap().units().is_empty());
    }

    fn host() -> Host {
        let judged = Some(Judged { queue: 3, open: false, others: true });
        let unit = HostUnit { number: 2, id: 44, cgroup: "unified/a".to_owned(), level: 1, epoch: 5, judged };
        Host { namespace: 9, field: 0xffff_0000, released: 4, units: BTreeMap::from([(7, unit)]) }
    }

    #[test]
    fn a_file_from_before_there_were_units_of_the_host_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(FILE),
            r#"{"units":{"1":{"namespace":5,"epoch":7,"released":2}},"counters":[]}"#,
        )
        .unwrap();

        let mut kept = Kept::open(folder.path()).unwrap();

        assert_eq!((kept.units().len(), kept.host()), (1, &Host::default()));
        kept.put_host(&host()).unwrap();
        kept.remove_unit(PuSlot(7)).unwrap();
        assert!(Kept::open(folder.path()).unwrap().host().units.is_empty());
    }
}
