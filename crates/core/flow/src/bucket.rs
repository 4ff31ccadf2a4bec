//! Token buckets per source.

use std::net::IpAddr;
use std::time::Duration;

use trireme_identity::time::Instant;

use crate::BoundedMap;

/// How much a [`Budget`] grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetConfig {
    /// Grants per second in the long run; 0 grants nothing.
    pub per_second: u32,
    /// Grants at once after a pause.
    pub burst: u32,
}

/// Budgets of many sources, at most as many as it has room for (GCRA: one instant per source).
#[derive(Clone, Debug)]
pub struct Budget {
    interval: Option<Duration>,
    tolerance: Duration,
    spent_until: BoundedMap<IpAddr, Instant>,
}

impl Budget {
    /// Budgets for at most `sources` sources; others start anew.
    #[must_use]
    pub fn new(config: BudgetConfig, sources: usize) -> Self {
        let interval = Duration::from_secs(1).checked_div(config.per_second);
        let tolerance = interval.unwrap_or_default().saturating_mul(config.burst.saturating_sub(1));
        Self { interval, tolerance, spent_until: BoundedMap::new(sources) }
    }

    /// Takes one grant of `source`, if there is one.
    pub fn try_take(&mut self, source: IpAddr, now: Instant) -> bool {
        let Some(interval) = self.interval else { return false };
        let source = source_of(source);
        let until = self.spent_until.get_mut(&source).map_or(now, |until| (*until).max(now));
        if until.since(now) > self.tolerance {
            return false;
        }
        self.spent_until.insert(source, until + interval);
        true
    }
}

/// The unit in which sources are counted: an IPv4 address or an IPv6 /64.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate_and_others_are_not_touched() {
        let mut budget = Budget::new(BudgetConfig { per_second: 10, burst: 3 }, 8);
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let take = |budget: &mut Budget, source, ms: u64| budget.try_take(source, Instant(ms * 1_000_000));
        assert_eq!([0, 0, 0, 0].map(|ms| take(&mut budget, a, ms)), [true, true, true, false]);
        assert!(take(&mut budget, b, 0));
        assert_eq!([99, 100, 150, 200].map(|ms| take(&mut budget, a, ms)), [false, true, false, true]);
        let mut none = Budget::new(BudgetConfig { per_second: 0, burst: 3 }, 8);
        assert!(!take(&mut none, a, 0));
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_share_a_budget() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        let c: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(source_of(a), source_of(b));
        assert_ne!(source_of(a), source_of(c));
    }
}
