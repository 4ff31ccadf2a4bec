use super::*;

/// The responder's handshake of unit 1 with source number `source` and this sequence number.
pub(crate) fn key(source: u8, isn: u32) -> HalfOpenKey {
    key_of(1, source, isn)
}

fn key_of(pu: u32, source: u8, isn: u32) -> HalfOpenKey {
    HalfOpenKey {
        flow: FlowKey::tcp(
            PuSlot(pu),
            ("10.0.0.1".parse().unwrap(), 80),
            (IpAddr::from([10, 0, 1, source]), 4000),
        ),
        role: Role::Responder,
        isn,
    }
}

const LIMITS: HalfOpenLimits =
    HalfOpenLimits { total: 16, per_unit: 8, per_source: 4, completed_per_unit: 2 };

#[test]
fn a_flood_fills_its_own_bounds_and_evicts_nobody() {
    let mut table = HalfOpenTable::new(LIMITS);
    table.insert(key(1, 0), 'v', Instant(100), Priority::Ordinary).unwrap();
    for isn in 0..3 {
        table.insert(key(2, isn), 'f', Instant(100), Priority::Ordinary).unwrap();
    }
    let full = table.insert(key(2, 3), 'f', Instant(100), Priority::Ordinary);
    assert_eq!(full, Err(Reason::HalfOpenSource));
    assert_eq!(table.insert(key(2, 3), 'p', Instant(100), Priority::Proven), Ok(()));
    table.insert(key(3, 0), 'f', Instant(100), Priority::Ordinary).unwrap();
    let full = table.insert(key(4, 0), 'f', Instant(100), Priority::Ordinary);
    assert_eq!(full, Err(Reason::HalfOpenUnit));
    assert_eq!(table.insert(key_of(2, 4, 0), 'o', Instant(100), Priority::Ordinary), Ok(()));
    assert_eq!((table.get(&key(1, 0)), table.len()), (Some(&'v'), 7));
}

#[test]
fn the_total_is_a_bound_too_and_counts_return_to_zero() {
    let mut table = HalfOpenTable::new(LIMITS);
    for pu in 0..4 {
        for source in 0..3 {
            table.insert(key_of(pu, source, 0), (), Instant(100), Priority::Ordinary).unwrap();
        }
    }
    let full = table.insert(key_of(9, 0, 0), (), Instant(100), Priority::Ordinary);
    assert_eq!(full, Err(Reason::HalfOpenTotal));
    assert_eq!(table.pop_due(Instant(99)), None);
    while table.pop_due(Instant(100)).is_some() {}
    assert!(table.is_empty() && table.unit_count.is_empty() && table.source_count.is_empty());
    assert_eq!((table.progress, table.next()), (0, None));
}

#[test]
fn completed_handshakes_leave_the_bounds_and_the_oldest_makes_room() {
    let mut table = HalfOpenTable::new(LIMITS);
    for (isn, deadline) in [(1, 30), (2, 10), (3, 20)] {
        table.insert(key(1, isn), isn, Instant(5), Priority::Ordinary).unwrap();
        let gone = table.complete(&key(1, isn), Instant(deadline));
        assert_eq!(gone, (isn == 3).then(|| (key(1, 2), 2)));
    }
    assert_eq!((table.progress, table.len(), table.source_count.len()), (0, 2, 0));
    table.reopen(&key(1, 1), Instant(40));
    assert_eq!((table.progress, table.completed.len()), (1, 1));
    let due: Vec<_> = std::iter::from_fn(|| table.pop_due(Instant(40))).map(|(_, isn)| isn).collect();
    assert_eq!(due, [3, 1]);
    assert!(table.completed.is_empty() && table.completed_count.is_empty() && table.unit_count.is_empty());
}

#[test]
fn handshakes_are_found_by_flow_and_by_unit() {
    let mut table = HalfOpenTable::new(LIMITS);
    for key in [key(1, 7), key(1, u32::MAX), key(2, 7), key_of(2, 1, 7)] {
        table.insert(key, (), Instant(9), Priority::Ordinary).unwrap();
    }
    let isns: Vec<_> = table.of_flow(key(1, 0).flow, Role::Responder).map(|(key, ())| key.isn).collect();
    assert_eq!(isns, [7, u32::MAX]);
    assert_eq!(table.of_flow(key(1, 0).flow, Role::Initiator).count(), 0);
    assert_eq!(table.of_unit(PuSlot(1)), [key(1, 7), key(1, u32::MAX), key(2, 7)]);
}
