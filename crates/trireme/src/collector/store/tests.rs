use trireme_flow::{Action, Party, Reason};
use trireme_identity::time::WallTime;
use trireme_identity::{Direction, Protocol, TagSet};

use super::*;

fn record(port: u16) -> FlowRecord {
    let party =
        Party { id: None, node: None, token: None, tags: TagSet::new(), address: [10, 0, 0, 1].into(), port };
    FlowRecord {
        pu: "web".parse().unwrap(),
        direction: Direction::Ingress,
        source: party.clone(),
        destination: party,
        attested: None,
        protocol: Protocol::TCP,
        action: Action::Reject,
        observed: None,
        policy: None,
        rule: None,
        rule_number: None,
        reason: Reason::ALL.first().copied().unwrap(),
        explanation: None,
        event: trireme_flow::FlowEvent::Decision,
        traffic: None,
        count: 1,
        first_seen: WallTime(1),
        last_seen: WallTime(2),
    }
}

fn ports(flows: &[StoredFlow]) -> Vec<(u64, u16)> {
    flows.iter().map(|flow| (flow.sequence, flow.record.source.port)).collect()
}

#[test]
fn the_newest_records_are_kept_and_the_oldest_forgotten() {
    let store = FlowStore::new(2);
    for port in [1, 2, 3] {
        store.flow(&record(port));
    }
    assert_eq!(ports(&store.newest(9)), [(2, 2), (3, 3)]);
    assert_eq!(ports(&store.newest(1)), [(3, 3)]);
    assert_eq!(store.total(), 3);
}

#[tokio::test]
async fn a_follower_sees_every_record_once_and_is_told_what_it_missed() {
    let store = FlowStore::new(8);
    store.flow(&record(1));
    let (stored, mut live) = store.follow(8);
    store.flow(&record(2));
    assert_eq!(ports(&stored), [(1, 1)]);
    assert_eq!(live.recv().await.unwrap().sequence, 2);
    for port in 0..2000 {
        store.flow(&record(port));
    }
    let lagged = live.recv().await.unwrap_err();
    assert_eq!(lagged, broadcast::error::RecvError::Lagged(2000 - 1024));
    assert_eq!(live.recv().await.unwrap().sequence, 2 + 2000 - 1024 + 1);
}
