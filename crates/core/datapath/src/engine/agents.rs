//! Where on the network an enforcer answers, as far as exchanges over UDP have shown it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trireme_flow::{BoundedMap, PuSlot};
use trireme_identity::time::Instant;
use trireme_token::Verified;

use super::Destination;

/// How long a destination that gave no answer is left alone the first time; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause where the address rules admit the destination all the same.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// The longest pause where nothing but an identity helps.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a destination without an answer means to the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// The address rules admit it.
    Admitted,
    /// They do not.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    until: Instant,
    pause: Duration,
}

/// Destinations that gave no answer, those that gave the wrong one, and peers by address.
#[derive(Debug)]
pub(super) struct Agents {
    silent: BoundedMap<Destination, Silence>,
    refused: BoundedMap<Destination, u32>,
    met: BoundedMap<(PuSlot, IpAddr), Arc<Verified>>,
}

impl Agents {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            silent: BoundedMap::new(capacity),
            refused: BoundedMap::new(capacity),
            met: BoundedMap::new(capacity),
        }
    }

    /// Whether the destination gave no answer lately.
    pub(super) fn is_silent(&mut self, at: &Destination, now: Instant) -> bool {
        self.silent.get_mut(at).is_some_and(|silence| silence.until > now)
    }

    pub(super) fn note_silence(&mut self, at: Destination, without: Without, now: Instant) {
        let longest = match without {
            Without::Admitted => LONGEST_PAUSE,
            Without::Refused => LONGEST_WAIT,
        };
        let before = self.silent.peek(&at).map(|silence| silence.pause.saturating_mul(2));
        let pause = before.unwrap_or(FIRST_PAUSE).min(longest);
        self.silent.insert(at, Silence { until: now + pause, pause });
    }

    /// Takes note of a peer that has proven itself.
    pub(super) fn meet(&mut self, pu: PuSlot, remote: (IpAddr, u16), peer: &Arc<Verified>) {
        self.silent.remove(&(pu, remote));
        self.met.insert((pu, remote.0), Arc::clone(peer));
    }

    /// A peer that proved itself from this address.
    pub(super) fn met(&self, pu: PuSlot, address: IpAddr) -> Option<&Arc<Verified>> {
        self.met.peek(&(pu, address))
    }

    /// Takes note that policy refused whoever answered there, in this epoch.
    pub(super) fn note_refusal(&mut self, at: Destination, epoch: u32) {
        self.refused.insert(at, epoch);
    }

    /// Whether policy refused whoever answered there, in this epoch: then no datagram leaves before the answer.
    pub(super) fn is_refused(&self, at: &Destination, epoch: u32) -> bool {
        self.refused.peek(at) == Some(&epoch)
    }

    pub(super) fn forget_unit(&mut self, pu: PuSlot) {
        self.silent.retain(|(slot, _)| *slot != pu);
        self.refused.retain(|(slot, _)| *slot != pu);
        self.met.retain(|(slot, _)| *slot != pu);
    }

    /// After a change of secrets nobody is known.
    pub(super) fn forget_peers(&mut self) {
        self.met.clear();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_what_the_unit_can_bear() {
        for (without, longest) in [(Without::Admitted, 600), (Without::Refused, 30)] {
            let mut agents = Agents::new(4);
            let at = (PuSlot(1), ("10.0.0.1".parse().unwrap(), 53));
            let (mut now, mut pauses) = (Instant(0), Vec::new());
            for _ in 0..10 {
                agents.note_silence(at, without, now);
                let pause = (0..=600).find(|secs| !agents.is_silent(&at, now + Duration::from_secs(*secs)));
                pauses.push(pause.unwrap());
                now = now + Duration::from_secs(600);
            }
            assert_eq!(pauses.first_chunk(), Some(&[5, 10, 20]));
            assert_eq!(pauses.last(), Some(&longest));
        }
    }
}
