//! Noticing that someone took our programs off an edge, and putting them back.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use trireme_bpf_abi::edge_flag;
use trireme_netns::{Filter, Links, Namespace, NamespaceId};

use super::{Attached, Plane};
use crate::attach::{self, HOOKS};
use crate::edge::edge_key;
use crate::error::chain;
use crate::{Hook, Slot, sys};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// The program is not on the hook any more.
    Detached,
    /// Another program is in its place.
    Replaced,
    /// It is still there, but would not have outlived the agent: its pin is gone.
    Unpinned,
    /// The PU's state in the maps is not what was written.
    Forgotten,
}

/// Something that was not as it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The PU.
    pub slot: Slot,
    /// The hook; None for what concerns both.
    pub hook: Option<Hook>,
    /// What was found.
    pub damage: Damage,
    /// Why it could not be repaired; None if it is.
    pub error: Option<String>,
}

impl Plane {
    /// Looks whether our programs are still on every hook and every PU's state is in the maps, and repairs what is not.
    /// Due every second. Interfaces that are gone are [`vanished`](Self::vanished), not damaged.
    pub fn self_check(&mut self) -> Vec<Repair> {
        let mut repairs = self.check_states();
        let mut damaged = self.check_links();
        damaged.extend(self.check_filters());
        for (slot, found) in damaged {
            let error = self.put_back(slot).err();
            repairs.extend(found.into_iter().map(|(hook, damage)| Repair {
                slot,
                hook: Some(hook),
                damage,
                error: error.clone(),
            }));
        }
        repairs
    }

    fn check_states(&mut self) -> Vec<Repair> {
        let Self { maps, edges, .. } = self;
        let mut repairs = Vec::new();
        for (slot, attached) in edges {
            let key = edge_key(attached.flags, *slot, attached.ifindex);
            let wanted = attached.state.to_abi(*slot, attached.ifindex);
            if maps.has_pu(key, &wanted) {
                continue;
            }
            let error = maps.write_pu(key, &wanted).err().map(|error| chain(&error));
            repairs.push(Repair { slot: *slot, hook: None, damage: Damage::Forgotten, error });
        }
        repairs
    }

    fn check_links(&self) -> BTreeMap<Slot, Vec<(Hook, Damage)>> {
        let mut all = BTreeMap::new();
        for (slot, attached) in &self.edges {
            if attached.flags & edge_flag::CLSACT != 0 || attached.vanished() {
                continue;
            }
            let found: Vec<_> = HOOKS
                .into_iter()
                .filter_map(|hook| Some((hook, attached.link_damage(hook, &self.pins.link(*slot, hook))?)))
                .collect();
            if !found.is_empty() {
                all.insert(*slot, found);
            }
        }
        all
    }

    /// Filters are asked for once per namespace.
    fn check_filters(&self) -> BTreeMap<Slot, Vec<(Hook, Damage)>> {
        let mut groups: BTreeMap<NamespaceId, Vec<(Slot, &Attached)>> = BTreeMap::new();
        for (slot, attached) in &self.edges {
            if attached.flags & edge_flag::CLSACT != 0 && !attached.vanished() {
                groups.entry(attached.namespace).or_default().push((*slot, attached));
            }
        }
        let mut all = BTreeMap::new();
        for group in groups.values() {
            let Some(namespace) = group.first().and_then(|(_, attached)| self.namespace_of(attached)) else {
                continue;
            };
            let indices: Vec<u32> = group.iter().map(|(_, attached)| attached.ifindex).collect();
            let Ok(filters) = namespace.run(|| list(&indices)) else { continue };
            for ((slot, attached), filters) in group.iter().zip(filters) {
                // What cannot be read is not known to be damaged.
                let found = filters.map_or_else(Vec::new, |filters| attached.filter_damage(&filters));
                if !found.is_empty() {
                    all.insert(*slot, found);
                }
            }
        }
        all
    }

    fn put_back(&mut self, slot: Slot) -> Result<(), String> {
        let Some(namespace) = self.edges.get(&slot).and_then(|attached| self.namespace_of(attached)) else {
            return Err("the namespace is gone".to_owned());
        };
        self.attach_programs(slot, &namespace).map_err(|error| chain(&error))
    }

    fn namespace_of(&self, attached: &Attached) -> Option<Namespace> {
        let found = self.namespace_of_edge(&attached.edge).ok()?;
        (found.id() == attached.namespace).then_some(found)
    }
}

impl Attached {
    fn link_damage(&self, hook: Hook, pin: &Path) -> Option<Damage> {
        let Some(on) = self.on(hook) else { return Some(Damage::Detached) };
        let Some(link) = on.link.as_ref() else { return Some(Damage::Detached) };
        let Ok(state) = sys::link_state(link.as_fd()) else { return Some(Damage::Detached) };
        if state.ifindex != self.ifindex {
            return Some(Damage::Detached);
        }
        if state.program != on.program {
            return Some(Damage::Replaced);
        }
        let pinned = sys::open(pin).and_then(|pinned| sys::link_state(pinned.as_fd()));
        if pinned.is_ok_and(|pinned| pinned.id == state.id) { None } else { Some(Damage::Unpinned) }
    }

    fn filter_damage(&self, filters: &[Filter]) -> Vec<(Hook, Damage)> {
        let damage = |hook| {
            let ingress = attach::is_ingress(hook, self.flags);
            let ours = filters.iter().find(|filter| filter.ingress == ingress && attach::is_ours(filter));
            match ours {
                None => Some(Damage::Detached),
                Some(filter) if filter.program != self.on(hook).map(|on| on.program) => {
                    Some(Damage::Replaced)
                }
                Some(_) => None,
            }
        };
        HOOKS.into_iter().filter_map(|hook| Some((hook, damage(hook)?))).collect()
    }
}

/// The filters of each interface; None where they cannot be read.
fn list(indices: &[u32]) -> Vec<Option<Vec<Filter>>> {
    let links = Links::connect();
    indices.iter().map(|index| links.as_ref().ok()?.clsact_filters(*index).ok()).collect()
}
