//! Signature checks under way and the packets that wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trireme_flow::{Deadlines, Reason};
use trireme_identity::time::Now;
use trireme_token::TokenId;

use crate::{Packet, VerifyJob};

/// A check whose result has not come by then is given up.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Job {
    name: TokenId,
    token: Arc<[u8]>,
    credential: Arc<[u8]>,
    parked: Vec<Packet>,
    until: trireme_identity::time::Instant,
}

/// Checks under way, bounded in number and in waiting packets.
#[derive(Debug)]
pub(crate) struct Jobs {
    capacity: usize,
    parked_capacity: usize,
    next: u64,
    jobs: BTreeMap<u64, Job>,
    by_name: BTreeMap<TokenId, u64>,
    parked: usize,
    deadlines: Deadlines<u64>,
}

impl Jobs {
    pub(crate) fn new(capacity: usize, parked_capacity: usize) -> Self {
        Self {
            capacity,
            parked_capacity,
            next: 0,
            jobs: BTreeMap::new(),
            by_name: BTreeMap::new(),
            parked: 0,
            deadlines: Deadlines::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) const fn parked(&self) -> usize {
        self.parked
    }

    /// Whether one more packet may wait.
    pub(crate) const fn room(&self) -> Result<(), Reason> {
        if self.parked < self.parked_capacity { Ok(()) } else { Err(Reason::ParkedFull) }
    }

    /// A check of exactly these bytes that is under way.
    pub(crate) fn find(&self, name: &TokenId, token: &[u8], credential: &[u8]) -> Option<u64> {
        let id = *self.by_name.get(name)?;
        let job = self.jobs.get(&id)?;
        (*job.token == *token && *job.credential == *credential).then_some(id)
    }

    /// Begins a check.
    pub(crate) fn begin(
        &mut self,
        name: TokenId,
        token: &[u8],
        credential: &[u8],
        now: Now,
    ) -> Result<(u64, VerifyJob), Reason> {
        if self.jobs.len() >= self.capacity {
            return Err(Reason::VerifyTotal);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let until = now.monotonic + PATIENCE;
        let (token, credential): (Arc<[u8]>, Arc<[u8]>) = (token.into(), credential.into());
        let job =
            VerifyJob { id, token: Arc::clone(&token), credential: Arc::clone(&credential), now: now.wall };
        self.jobs.insert(id, Job { name, token, credential, parked: Vec::new(), until });
        self.by_name.entry(name).or_insert(id);
        self.deadlines.add(until, id);
        Ok((id, job))
    }

    /// Lets a packet wait for a check.
    pub(crate) fn park(&mut self, id: u64, packet: Packet) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.parked.push(packet);
            self.parked += 1;
        }
    }

    /// Ends a check and gives the packets back that waited for it.
    pub(crate) fn end(&mut self, id: u64) -> Option<Vec<Packet>> {
        let job = self.jobs.remove(&id)?;
        if self.by_name.get(&job.name) == Some(&id) {
            self.by_name.remove(&job.name);
        }
        self.deadlines.cancel(job.until, id);
        self.parked = self.parked.saturating_sub(job.parked.len());
        Some(job.parked)
    }

    /// Ends every check.
    pub(crate) fn clear(&mut self) -> Vec<Packet> {
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.end(id)).flatten().collect()
    }

    pub(crate) fn pop_due(&mut self, now: trireme_identity::time::Instant) -> Option<Vec<Packet>> {
        let id = self.deadlines.pop_due(now)?;
        self.end(id)
    }

    pub(crate) fn next_deadline(&self) -> Option<trireme_identity::time::Instant> {
        self.deadlines.next()
    }
}
