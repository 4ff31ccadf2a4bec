//! What rules and queue of a unit have counted, never going back.

use trireme_netfilter::Denied;
use trireme_nfqueue::QueueStatistics;

use super::watch::Seen;

/// Sums over all rules and queues that the unit has had in this run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    denied_from: Sum,
    denied_to: Sum,
    queued: Sum,
    queue_full: Sum,
    unqueued: Sum,
    not_delivered: Sum,
}

/// A counter that begins anew from time to time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    whole: u64,
    last: u64,
}

impl Sum {
    const fn add(&mut self, seen: u64) {
        let more = if seen >= self.last { seen - self.last } else { seen };
        self.whole = self.whole.saturating_add(more);
        self.last = seen;
    }
}

impl Counted {
    pub(super) fn add(&mut self, Seen { slot: _, queue, denied: Denied { from, to }, unqueued }: &Seen) {
        self.denied_from.add(*from);
        self.denied_to.add(*to);
        self.unqueued.add(*unqueued);
        if let Some(QueueStatistics { dropped, not_delivered, queued, .. }) = queue {
            self.queued.add((*queued).into());
            self.queue_full.add((*dropped).into());
            self.not_delivered.add((*not_delivered).into());
        }
    }

    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("other-protocol-from", self.denied_from),
            ("other-protocol-to", self.denied_to),
            ("queued", self.queued),
            ("queue-full", self.queue_full),
            ("queue-not-delivered", self.not_delivered),
            ("not-queued", self.unqueued),
        ]
        .into_iter()
        .map(|(name, sum)| (name, sum.whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_anew_goes_on() {
        let mut sum = Sum::default();
        for seen in [3, 5, 2, 2, 9] {
            sum.add(seen);
        }
        assert_eq!(sum.whole, 5 + 2 + 7);
    }
}
