//! Attaching, updating, adopting and detaching PUs.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use aya::Ebpf;
use trireme_bpf_abi::{self as abi, EdgeRecord, SLOT_BITS, edge_flag};
use trireme_netns::{Link, LinkError, Links, Namespace};

use super::{Attached, Plane};
use crate::attach::{Attachment, HOOKS, ensure_clsact};
use crate::cleanup::detach_record;
use crate::connection::unit_of;
use crate::edge::{edge_key, from_record, namespace_of, to_record};
use crate::error::Cause;
use crate::frame::Neighbours;
use crate::inject::Injector;
use crate::migrate;
use crate::object::{self, Constants};
use crate::reinject::Port;
use crate::socket::PacketSocket;
use crate::{AttachError, AttachMethod, DetachError, Edge, OpenError, PlaneError, PuState, Slot, probe, sys};

/// Kinds of limits in the order of the numbers of `limit_kind` in abi.h.
const LIMIT_KINDS: u32 = 4;

/// Roles in the order of the numbers of `role` in handshake_abi.h.
const ROLES: u32 = 2;

impl Plane {
    /// Attaches a PU: from the return on, nothing of it passes that the maps do not allow.
    ///
    /// A slot that is attached to the same edge already, by an earlier process too, gets the state and this
    /// program's BPF code without a moment of being open.
    ///
    /// # Errors
    /// [`AttachError`]; nothing of a failed attempt is left.
    pub fn attach(&mut self, edge: &Edge, slot: Slot, state: PuState) -> Result<(), AttachError> {
        if slot.0 >= 1 << SLOT_BITS {
            return Err(AttachError::Slot(slot));
        }
        let namespace = self.namespace_of_edge(edge)?;
        let link = namespace.run(|| find(edge))??;
        if let Some(old) = self.edges.get(&slot) {
            if old.edge != *edge {
                return Err(AttachError::SlotTaken { slot, other: device(&old.edge).to_owned() });
            }
            if old.ifindex == link.index && old.namespace == namespace.id() {
                return self.renew(slot, state);
            }
            // The interface was made anew: what is recorded belongs to one that is gone.
            self.detach(slot).map_err(|error| program_error("detach", edge, error.into()))?;
        }
        let taken = |other: &Attached| other.ifindex == link.index && other.namespace == namespace.id();
        if let Some((owner, _)) = self.edges.iter().find(|(_, other)| taken(other)) {
            return Err(AttachError::InterfaceTaken { name: link.name, owner: *owner });
        }
        let flags = self.flags_for(edge);
        let attached = self.build(edge, &link, &namespace, flags, state)?;
        self.write_maps(slot, &attached)?;
        self.edges.insert(slot, attached);
        if let Err(error) = self.attach_programs(slot, &namespace) {
            if let Err(left) = self.detach(slot) {
                tracing::warn!(%slot, error = %left, "failed attachment left something behind");
            }
            return Err(error);
        }
        self.take_off_closed(edge, &link, &namespace)
    }

    /// Takes off what a predecessor of an unknown version had on the interface.
    fn take_off_closed(&self, edge: &Edge, link: &Link, namespace: &Namespace) -> Result<(), AttachError> {
        if !migrate::has_closed(&self.pins) {
            return Ok(());
        }
        let failed = |source: Cause| program_error("the programs", edge, source);
        let on_it = namespace.run(|| sys::links_on(link.index))?.map_err(|error| failed(error.into()))?;
        migrate::reopen(&self.pins, &on_it).map_err(failed)
    }

    /// Changes the state of a PU at once.
    ///
    /// # Errors
    /// [`PlaneError::NotAttached`] if there is no such PU.
    pub fn update(&mut self, slot: Slot, state: PuState) -> Result<(), PlaneError> {
        let attached = self.edges.get_mut(&slot).ok_or(PlaneError::NotAttached(slot))?;
        let key = edge_key(attached.flags, slot, attached.ifindex);
        self.maps.write_pu(key, &state.to_abi(slot, attached.ifindex))?;
        attached.state = state;
        Ok(())
    }

    /// Detaches a PU and forgets its connections: its edge is open afterwards, and as it was found.
    ///
    /// # Errors
    /// [`DetachError::Incomplete`] names what could not be removed; the rest is.
    pub fn detach(&mut self, slot: Slot) -> Result<(), DetachError> {
        let attached = self.edges.remove(&slot).ok_or(DetachError::NotAttached(slot))?;
        let mut problems: Vec<Cause> = Vec::new();
        let record = attached.record();
        let maps = self.pins.maps().to_path_buf();
        let detached = self.home.run(|| detach_record(&maps, slot, &record, &mut problems));
        if let Err(error) = detached {
            problems.push(error.into());
        }
        self.forget_maps(slot, attached.flags, attached.ifindex, &mut problems);
        let namespace = attached.namespace;
        // Links whose pins someone removed.
        for link in attached.on.iter().flatten().filter_map(|on| on.link.as_ref()) {
            if let Err(error) = sys::detach(link.as_fd())
                && error.raw_os_error() != Some(libc::ENOLINK)
            {
                problems.push(error.into());
            }
        }
        drop(attached);
        if namespace != self.home.id() && !self.edges.values().any(|other| other.namespace == namespace) {
            self.injectors.remove(&namespace);
            self.sockets.remove(&namespace);
        }
        if problems.is_empty() { Ok(()) } else { Err(DetachError::Incomplete { slot, problems }) }
    }

    /// Takes over what is recorded in the maps; what cannot be taken over is closed for good or gone.
    pub(super) fn adopt(&mut self) -> Result<(), OpenError> {
        for (key, record) in self.maps.edges.entries()? {
            let slot = Slot(u32::from_ne_bytes(key));
            if let Err(error) = self.adopt_one(slot, &record) {
                tracing::warn!(%slot, %error, "recorded edge is gone or cannot be adopted");
                self.drop_record(slot, &record);
            }
        }
        Ok(())
    }

    fn adopt_one(&mut self, slot: Slot, record: &EdgeRecord) -> Result<(), AttachError> {
        let edge = from_record(record);
        let namespace = self.namespace_of_edge(&edge)?;
        if namespace.id() != namespace_of(record) {
            let found = namespace.id();
            let expected = namespace_of(record);
            return Err(trireme_netns::NamespaceError::Changed { expected, found }.into());
        }
        let link = namespace.run(|| find(&edge))??;
        if link.index != record.ifindex {
            return Err(LinkError::Absent(link.name).into());
        }
        let key = edge_key(record.flags, slot, record.ifindex).to_ne_bytes();
        let state = self.maps.pus.get(&key)?.map_or_else(PuState::default, |pu| PuState::from_abi(&pu));
        let attached = self.build(&edge, &link, &namespace, record.flags, state)?;
        self.write_maps(slot, &attached)?;
        self.edges.insert(slot, attached);
        self.attach_programs(slot, &namespace)
    }

    fn drop_record(&mut self, slot: Slot, record: &EdgeRecord) {
        let mut problems = Vec::new();
        self.edges.remove(&slot);
        detach_record(self.pins.maps(), slot, record, &mut problems);
        self.forget_maps(slot, record.flags, record.ifindex, &mut problems);
        for problem in problems {
            tracing::warn!(%slot, error = %problem, "recorded edge left something behind");
        }
    }

    fn renew(&mut self, slot: Slot, state: PuState) -> Result<(), AttachError> {
        self.update(slot, state)?;
        let Some(edge) = self.edges.get(&slot).map(|attached| attached.edge.clone()) else { return Ok(()) };
        let namespace = self.namespace_of_edge(&edge)?;
        self.attach_programs(slot, &namespace)
    }

    pub(super) fn namespace_of_edge(&self, edge: &Edge) -> Result<Namespace, AttachError> {
        let Edge::Namespace { path, .. } = edge else {
            return Ok(self.home.duplicate()?);
        };
        if path.to_str().is_none_or(|text| text.len() > 215) {
            return Err(AttachError::Path(path.clone()));
        }
        Ok(Namespace::open(path)?)
    }

    fn flags_for(&self, edge: &Edge) -> u32 {
        let place = match edge {
            Edge::Interface(_) => 0,
            Edge::Namespace { .. } => edge_flag::NAMESPACE,
        };
        let method = match self.config.attach {
            AttachMethod::Auto if probe::has_tcx() => 0,
            AttachMethod::Auto | AttachMethod::Clsact => edge_flag::CLSACT,
        };
        place | method
    }

    fn build(
        &mut self,
        edge: &Edge,
        link: &Link,
        namespace: &Namespace,
        flags: u32,
        state: PuState,
    ) -> Result<Attached, AttachError> {
        let socket = self.socket(namespace)?;
        let injector = self.injector(namespace)?;
        let ifindex = link.index;
        let direct = Port::Direct { socket: Arc::clone(&socket), ifindex };
        let inject = Port::Inject { injector, ifindex };
        let (to_pu, to_network) = match edge {
            Edge::Interface(_) => (direct, inject),
            Edge::Namespace { .. } => (inject, direct),
        };
        Ok(Attached {
            edge: edge.clone(),
            ifindex,
            flags,
            namespace: namespace.id(),
            mtu: link.mtu,
            state,
            on: [None, None],
            socket,
            to_pu,
            to_network,
            neighbours: Neighbours::default(),
        })
    }

    fn socket(&mut self, namespace: &Namespace) -> Result<Arc<PacketSocket>, AttachError> {
        if let Some(socket) = self.sockets.get(&namespace.id()) {
            return Ok(Arc::clone(socket));
        }
        let socket = Arc::new(namespace.run(PacketSocket::open)?.map_err(AttachError::Socket)?);
        self.sockets.insert(namespace.id(), Arc::clone(&socket));
        Ok(socket)
    }

    fn injector(&mut self, namespace: &Namespace) -> Result<Arc<Injector>, AttachError> {
        if let Some(injector) = self.injectors.get(&namespace.id()) {
            return Ok(Arc::clone(injector));
        }
        let injector = Arc::new(Injector::new(namespace, &self.pins, &self.config)?);
        self.injectors.insert(namespace.id(), Arc::clone(&injector));
        Ok(injector)
    }

    /// Everything the programs look up, before they are attached.
    fn write_maps(&mut self, slot: Slot, attached: &Attached) -> Result<(), PlaneError> {
        let key = edge_key(attached.flags, slot, attached.ifindex);
        let limits = [
            self.config.limits.from_pu_per_sec,
            self.config.limits.to_pu_per_sec,
            self.config.limits.icmp_per_sec,
            self.config.limits.unknown_per_sec,
        ];
        for (kind, per_sec) in (0..LIMIT_KINDS).zip(limits) {
            let max = object::per_window(per_sec);
            let limit = abi::Limit { max, ..abi::Limit::default() };
            self.maps.limits.set(slot.0.saturating_mul(LIMIT_KINDS) + kind, &limit)?;
        }
        for role in 0..ROLES {
            // What is unfinished stays counted when a PU is taken over.
            let place = slot.0.saturating_mul(ROLES) + role;
            let old = self.maps.quotas.get(place)?.unwrap_or_default();
            self.maps.quotas.set(place, &abi::Quota { max: self.config.limits.half_open, ..old })?;
        }
        self.maps.edges.insert(&slot.0.to_ne_bytes(), &attached.record())?;
        self.maps.write_pu(key, &attached.state.to_abi(slot, attached.ifindex))
    }

    pub(super) fn attach_programs(&mut self, slot: Slot, namespace: &Namespace) -> Result<(), AttachError> {
        // Loading programs takes its time, and this thread is the agent's.
        self.beat()?;
        let Self { edges, maps, pins, programs, config, .. } = self;
        let Some(attached) = edges.get_mut(&slot) else { return Ok(()) };
        let edge = attached.edge.clone();
        let failed = |source| program_error("the programs", &edge, source);
        let mut own;
        let object: &mut Ebpf = match &edge {
            Edge::Interface(_) => programs,
            Edge::Namespace { .. } => {
                let edge_key = edge_key(attached.flags, slot, attached.ifindex);
                let constants = Constants { edge_key, ..Constants::default() };
                own = object::load(pins, config, constants).map_err(failed)?;
                &mut own
            }
        };
        let name = device(&edge).to_owned();
        if attached.flags & edge_flag::CLSACT != 0 {
            let created = namespace.run(|| ensure_clsact(&name, attached.ifindex))?.map_err(failed)?;
            if created {
                attached.flags |= edge_flag::QDISC_CREATED;
                maps.edges.insert(&slot.0.to_ne_bytes(), &attached.record())?;
            }
        }
        let (ifindex, flags) = (attached.ifindex, attached.flags);
        for (hook, on) in HOOKS.into_iter().zip(&mut attached.on) {
            let pin = pins.link(slot, hook);
            let held = on.as_ref().and_then(|on| on.link.as_ref());
            let attachment = Attachment { name: &name, ifindex, flags, hook, pin: &pin, held };
            *on = Some(namespace.run(|| attachment.attach(object))??);
        }
        Ok(())
    }

    fn forget_maps(&mut self, slot: Slot, flags: u32, ifindex: u32, problems: &mut Vec<Cause>) {
        let maps = &mut self.maps;
        let mut note = |result: Result<(), PlaneError>| {
            if let Err(error) = result {
                problems.push(error.into());
            }
        };
        note(maps.remove_pu(edge_key(flags, slot, ifindex)));
        note(maps.edges.remove(&slot.0.to_ne_bytes()).map(drop));
        for role in 0..ROLES {
            note(maps.quotas.set(slot.0.saturating_mul(ROLES) + role, &abi::Quota::default()));
        }
        note(maps.counters.clear(slot.0));
        let number = slot.0.to_ne_bytes();
        let unit = unit_of(slot);
        note(self.orders.forget_unit(unit));
        note(maps.connections.forget(|key| key.starts_with(&unit.to_ne_bytes())));
        // The next PU of this slot may have the same epoch.
        note(maps.verdicts.forget(|key| key.starts_with(&number)));
        note(maps.destinations.forget(|key| key.starts_with(&number)));
        note(maps.refusals.forget(|key| key.starts_with(&number)));
        for events in &mut maps.events {
            note(events.forget(|key| key.starts_with(&number)));
        }
        note(maps.reasons.forget(|key| u64::from_ne_bytes(*key) >> 32 == u64::from(slot.0)));
    }
}

impl Attached {
    fn record(&self) -> EdgeRecord {
        to_record(&self.edge, self.ifindex, self.flags, self.namespace)
    }
}

fn find(edge: &Edge) -> Result<Link, AttachError> {
    let link = Links::connect()?.by_name(device(edge))?;
    if !link.ethernet {
        return Err(AttachError::NotEthernet(link.name));
    }
    Ok(link)
}

fn device(edge: &Edge) -> &str {
    match edge {
        Edge::Interface(name) | Edge::Namespace { device: name, .. } => name,
    }
}

fn program_error(what: &'static str, edge: &Edge, source: Cause) -> AttachError {
    AttachError::Program { what, name: device(edge).to_owned(), source }
}
