//! Taking over the pins of another version of the layouts.
//!
//! Those of versions 1 and 2 are read: edges, states and connections are copied and every link gets the new program. Of an
//! unknown version nothing can be read: its links get a program that drops everything until their PUs are attached
//! again; its filters stay, which let nothing new pass without an agent. At no moment is a hook without a program.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use trireme_bpf_abi::{ABI_VERSION, Connection};

use crate::error::Cause;
use crate::maps::{Map, Maps};
use crate::object::{self, Constants};
use crate::pins::Pins;
use crate::shape;
use crate::time::monotonic_nanos;
use crate::{OpenError, PlaneConfig, PlaneError, sys};

mod layouts;

use layouts::Tables;

/// Key of no PU: a program that looks for it drops everything.
const NOBODY: u32 = u32::MAX;

/// Prefix of the pins of links whose PU is not known.
const CLOSED: &str = "closed-";

/// A closing connection without a packet for this long is over.
const CLOSING_NANOS: u64 = 60_000_000_000;

/// Pins of another version.
pub(crate) struct Predecessor {
    version: u32,
    directory: PathBuf,
    tables: Option<Tables>,
    /// Pins of links that have been looked at, by file name.
    links: Vec<(String, PathBuf)>,
}

impl Predecessor {
    /// Looks at what other versions left and refuses what is not theirs; changes nothing.
    pub(crate) fn find(pins: &Pins) -> Result<Vec<Self>, OpenError> {
        pins.others().iter().map(|(version, directory)| Self::open(*version, directory)).collect()
    }

    fn open(version: u32, directory: &Path) -> Result<Self, OpenError> {
        let failed = |source: Cause| other_abi(directory, version, source);
        let shapes = layouts::shapes(version)
            .filter(|shapes| shapes.iter().all(|shape| directory.join(shape.name).exists()));
        let tables = if let Some(shapes) = shapes {
            shape::check(directory, shapes)?;
            Some(Tables::open(version, directory).map_err(failed)?)
        } else {
            None
        };
        let links = links(&directory.join("links")).map_err(failed)?;
        Ok(Self { version, directory: directory.to_path_buf(), tables, links })
    }

    /// Most connections it holds.
    pub(crate) fn connections(&self) -> u32 {
        let pinned = || aya::maps::MapInfo::from_pin(self.directory.join("connections")).ok();
        if self.tables.is_some() { pinned().map_or(0, |info| info.max_entries()) } else { 0 }
    }

    /// Writes what it knows into the new maps and pins its links where they are looked for; the programs on them are
    /// still the old ones.
    pub(crate) fn copy(&self, maps: &mut Maps, pins: &Pins) -> Result<(), OpenError> {
        let failed = |source: Cause| other_abi(&self.directory, self.version, source);
        let Some(tables) = &self.tables else { return Ok(()) };
        tables.copy_connections(maps)?;
        if self.version == 2 {
            layouts::copy_knowledge(&self.directory, maps)?;
        }
        for (key, pu) in tables.pus()? {
            maps.write_pu(key, &pu)?;
        }
        // Last: who has a record has everything else.
        for (key, record) in tables.edges()? {
            maps.edges.insert(&key, &record)?;
        }
        for (name, pin) in self.links.iter().filter(|(name, _)| tables.knows(name)) {
            let place = pins.maps().join("links").join(name);
            if !place.exists() {
                let link = sys::open(pin).map_err(|error| failed(error.into()))?;
                sys::pin(link.as_fd(), &place).map_err(|error| failed(error.into()))?;
            }
        }
        Ok(())
    }

    /// Takes along what the old programs noted until they were replaced, closes the links that nobody has taken over,
    /// and removes the old pins.
    pub(crate) fn finish(self, maps: &mut Maps, pins: &Pins, config: &PlaneConfig) -> Result<(), OpenError> {
        let failed = |source: Cause| other_abi(&self.directory, self.version, source);
        if let Some(tables) = &self.tables {
            tables.copy_notes(maps)?;
        }
        self.close(pins, config).map_err(failed)?;
        fs::remove_dir_all(&self.directory).map_err(|error| failed(error.into()))?;
        tracing::info!(version = self.version, links = self.links.len(), "took over pins of another version");
        Ok(())
    }

    fn close(&self, pins: &Pins, config: &PlaneConfig) -> Result<(), Cause> {
        let unknown = |name: &str| self.tables.as_ref().is_none_or(|tables| !tables.knows(name));
        let unknown: Vec<_> = self.links.iter().filter(|(name, _)| unknown(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let constants = Constants { edge_key: NOBODY, ..Constants::default() };
        let mut object = object::load(pins, config, constants)?;
        for (name, pin) in unknown {
            let link = sys::open(pin)?;
            let program = if name.ends_with("-from") { "from_pu" } else { "to_pu" };
            let program = object::program(&mut object, program)?;
            match sys::update(link.as_fd(), program.fd()?.as_fd()) {
                // Its interface is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => continue,
                other => other?,
            }
            let place = pins.maps().join("links").join(format!("{CLOSED}v{}-{name}", self.version));
            if !place.exists() {
                sys::pin(link.as_fd(), &place)?;
            }
        }
        Ok(())
    }
}

/// Takes the closed links off an interface whose PU has been attached; `on_it` are the numbers of the links on it.
pub(crate) fn reopen(pins: &Pins, on_it: &[u32]) -> Result<(), Cause> {
    for (name, pin) in links(&pins.maps().join("links"))? {
        if name.starts_with(CLOSED) && on_it.contains(&sys::link_state(sys::open(&pin)?.as_fd())?.id) {
            crate::attach::detach_link(&pin)?;
        }
    }
    Ok(())
}

/// True if some links are closed because their PU is not known.
pub(crate) fn has_closed(pins: &Pins) -> bool {
    let mut entries = fs::read_dir(pins.maps().join("links")).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with(CLOSED))
}

impl Tables {
    /// Copies the connections of PUs that have no record in the new maps yet: those of the others were copied by a
    /// take-over that was interrupted, and may have ended since.
    ///
    /// Closing ones become live again; the new programs close them with their next segment.
    fn copy_connections(&self, maps: &mut Maps) -> Result<(), PlaneError> {
        let done: HashSet<[u8; 4]> = maps.edges.entries()?.into_iter().map(|(key, _)| key).collect();
        let oldest = monotonic_nanos().saturating_sub(CLOSING_NANOS);
        let mut lost = 0_usize;
        let mut copy = |slot: [u8; 4], key: &[u8; 40], new: &Connection| {
            if done.contains(&slot) {
                return Ok(());
            }
            match maps.connections.insert_new(key, new) {
                Err(PlaneError::Full { .. }) => {
                    lost += 1;
                    Ok(())
                }
                result => result.map(drop),
            }
        };
        self.connections.each(&mut copy)?;
        if let Some(closing) = &self.closing {
            closing.each(
                |slot, key, new| {
                    if new.last_seen < oldest { Ok(()) } else { copy(slot, key, new) }
                },
            )?;
        }
        if lost > 0 {
            tracing::warn!(lost, "connections of another version found no room: raise the size of the table");
        }
        Ok(())
    }

    /// Copies flags that the old programs set behind the first copy.
    fn copy_notes(&self, maps: &mut Maps) -> Result<(), PlaneError> {
        let connections = &mut maps.connections;
        for table in [Some(&self.connections), self.closing.as_ref()].into_iter().flatten() {
            table.each(|_, key, old| merge(connections, key, old))?;
        }
        Ok(())
    }
}

fn merge(
    connections: &mut Map<Connection, 40, 128>,
    key: &[u8; 40],
    old: &Connection,
) -> Result<(), PlaneError> {
    let Some(new) = connections.get(key)? else { return Ok(()) };
    if new.flags | old.flags == new.flags {
        return Ok(());
    }
    let fin_to = if new.fin_to == 0 { old.fin_to } else { new.fin_to };
    connections.insert(key, &Connection { flags: new.flags | old.flags, fin_to, ..new })
}

/// Pins of links by their names; refuses what is no link.
fn links(directory: &Path) -> Result<Vec<(String, PathBuf)>, Cause> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let found = shape::describe(sys::open(&path)?)?;
        if found != "a link" {
            return Err(format!("{} is {found}, not a link", path.display()).into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push((name, path));
    }
    Ok(all)
}

fn other_abi(directory: &Path, found: u32, source: Cause) -> OpenError {
    OpenError::OtherAbi { path: directory.to_path_buf(), found, own: ABI_VERSION, source }
}
