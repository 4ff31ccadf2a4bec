//! What the engine tells the programs, and what it asks back.

use std::net::IpAddr;

use trireme_bpf_abi::{Destination, Pair, PairKey};
use zerocopy::transmute;

use super::Plane;
use crate::identity::{attachment, destination_key, role_number};
use crate::{PairKeys, PeerState, PlaneError, RefusalState, Role, Slot, VerdictState};

impl Plane {
    /// Writes the bytes of a token of a PU's own, by its id.
    ///
    /// # Errors
    /// [`PlaneError::TooLong`] if the programs cannot attach that much, [`PlaneError::Full`] if the map is full.
    pub fn own_token_insert(
        &mut self,
        id: &[u8; 16],
        token: &[u8],
        credential: &[u8],
    ) -> Result<(), PlaneError> {
        self.maps.own_tokens.insert(id, &attachment(token, credential)?)
    }

    /// Removes a token of a PU's own; true if there was one.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn own_token_remove(&mut self, id: &[u8; 16]) -> Result<bool, PlaneError> {
        self.maps.own_tokens.remove(id)
    }

    /// Returns the ids of all tokens of the PUs' own.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn own_tokens(&self) -> Result<Vec<[u8; 16]>, PlaneError> {
        Ok(self.maps.own_tokens.entries()?.into_iter().map(|(id, _)| id).collect())
    }

    /// Writes a peer, by the id of its token. That a renewal was begun for it stays known.
    ///
    /// # Errors
    /// [`PlaneError::Full`] if the map is full: its handshakes then go on through user space.
    pub fn peer_insert(&mut self, id: &[u8; 16], peer: &PeerState) -> Result<(), PlaneError> {
        let tried = self.maps.peers.get(id)?.map_or([0; 16], |old| old.tried_key);
        self.maps.peers.insert(id, &peer.to_abi(tried))
    }

    /// Removes a peer; true if there was one.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn peer_remove(&mut self, id: &[u8; 16]) -> Result<bool, PlaneError> {
        self.maps.peers.remove(id)
    }

    /// Returns all peers with the ids of their tokens.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn peers(&self) -> Result<Vec<([u8; 16], PeerState)>, PlaneError> {
        let entries = self.maps.peers.entries()?;
        Ok(entries.iter().map(|(id, peer)| (*id, PeerState::from_abi(peer))).collect())
    }

    /// Writes the MAC keys of our agreement key `own` and the peer's, both by name, for a PU of this role.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn pair_insert(
        &mut self,
        own: &[u8; 16],
        peer: &[u8; 16],
        role: Role,
        keys: &PairKeys,
    ) -> Result<(), PlaneError> {
        let key = PairKey { own: *own, peer: *peer, role: role_number(role), pad: 0 };
        let PairKeys { initiator, responder } = *keys;
        self.maps.pair_keys.insert(&transmute!(key), &Pair { initiator, responder })
    }

    /// Writes a verdict.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn verdict_insert(&mut self, verdict: &VerdictState) -> Result<(), PlaneError> {
        let (key, verdict) = verdict.to_abi();
        self.maps.verdicts.insert(&transmute!(key), &verdict)
    }

    /// Says that a PU shows its identity at an address: to one peer that holds a token of ours (both by id), or to a
    /// service.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn destination_insert(
        &mut self,
        slot: Slot,
        remote: (IpAddr, u16),
        epoch: u32,
        peer: Option<([u8; 16], [u8; 16])>,
    ) -> Result<(), PlaneError> {
        let (peer, own_token) = peer.unwrap_or_default();
        let value = Destination { epoch, pad: 0, peer, own_token };
        self.maps.destinations.insert(&transmute!(destination_key(slot, remote)), &value)
    }

    /// Takes back what [`destination_insert`](Self::destination_insert) said; true if it was known.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn destination_remove(&mut self, slot: Slot, remote: (IpAddr, u16)) -> Result<bool, PlaneError> {
        self.maps.destinations.remove(&transmute!(destination_key(slot, remote)))
    }

    /// Writes a refused initiator.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn refusal_insert(&mut self, refusal: &RefusalState) -> Result<(), PlaneError> {
        let (key, refusal) = refusal.to_abi();
        self.maps.refusals.insert(&transmute!(key), &refusal)
    }

    /// Returns the engine's counters as [`set_reason`](Self::set_reason) wrote them; an earlier process may have.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn reasons(&self) -> Result<Vec<(Slot, u16, u64)>, PlaneError> {
        let entries = self.maps.reasons.entries()?;
        let split = |(key, value): ([u8; 8], u64)| {
            let number = u64::from_ne_bytes(key);
            let slot = u32::try_from(number >> 32).ok()?;
            Some((Slot(slot), u16::try_from(number & u64::from(u32::MAX)).ok()?, value))
        };
        Ok(entries.into_iter().filter_map(split).collect())
    }

    /// Keeps a counter of the engine until the PU is detached.
    ///
    /// # Errors
    /// [`PlaneError::Full`] if the map is full.
    pub fn set_reason(&mut self, slot: Slot, reason: u16, value: u64) -> Result<(), PlaneError> {
        let key = u64::from(slot.0) << 32 | u64::from(reason);
        self.maps.reasons.insert(&key.to_ne_bytes(), &value)
    }
}
