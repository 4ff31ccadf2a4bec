use std::sync::Arc;

use trireme_identity::TagSet;
use trireme_policy::{CompiledPolicy, PuPolicy};

use super::*;
use crate::{Authorize, Edge, Monitor, StaticMonitor, StaticPu, UnitSettings};

const KEY: KeyId = KeyId([1; 32]);
const NONE: &DenyList = &DenyList {
    tokens: std::collections::BTreeSet::new(),
    keys: std::collections::BTreeSet::new(),
    nodes: std::collections::BTreeSet::new(),
};
const BASIS: Basis<'static> = Basis { key: KEY, denied: NONE };

fn pinned(epochs: &[(u32, u32)]) -> Pinned {
    Pinned { epochs: epochs.iter().copied().collect(), here: None }
}

fn unit(id: &str, tags: &str, policy: &PuPolicy) -> Enforcement {
    let unit = StaticPu {
        id: id.parse().unwrap(),
        tags: TagSet::parse(tags.split(',')).unwrap(),
        edge: Edge::Interface("veth0".to_owned()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pu = runtime.block_on(StaticMonitor::new(vec![unit]).existing()).unwrap().remove(0);
    Enforcement {
        identity: pu.runtime.tags.clone(),
        annotations: TagSet::new(),
        policy: Arc::new(CompiledPolicy::compile(policy).unwrap()),
        settings: UnitSettings::default(),
        pu,
    }
}

#[test]
fn an_unchanged_unit_keeps_slot_and_epoch_over_a_restart_and_a_changed_one_gets_the_next_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("s")).unwrap();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let mut ledger = Ledger::load(&state).unwrap();
    let first = ledger.enter(&web, &BASIS, &pinned(&[]));
    assert_eq!((first.slot, first.epoch), (0, 1));
    ledger.insert(web.id().clone(), first.clone());
    state.write(FILE, &ledger.to_bytes()).unwrap();

    let restarted = Ledger::load(&state).unwrap();
    let pinned = pinned(&[(0, 1)]);
    assert_eq!(restarted.enter(&web, &BASIS, &pinned), first);
    assert_eq!(restarted.enter(&unit("web", "role=web", &PuPolicy::deny_all()), &BASIS, &pinned).epoch, 2);
    assert_eq!(
        restarted.enter(&unit("web", "role=web,a=b", &PuPolicy::unrestricted()), &BASIS, &pinned).epoch,
        2
    );
    let mut stricter = unit("web", "role=web", &PuPolicy::unrestricted());
    stricter.settings.tcp.authorize = Authorize::ReceiverOnly;
    assert_eq!(restarted.enter(&stricter, &BASIS, &pinned).epoch, 2);
}

#[test]
fn other_secrets_make_a_new_epoch() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &BASIS, &pinned(&[]));
    ledger.insert(web.id().clone(), line);
    assert_eq!(ledger.enter(&web, &Basis { key: KeyId([2; 32]), ..BASIS }, &pinned(&[])).epoch, 2);
    ledger.invalidate();
    assert_eq!(ledger.enter(&web, &BASIS, &pinned(&[])).epoch, 2);
}

#[test]
fn an_epoch_that_the_kernel_does_not_confirm_is_not_kept() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &BASIS, &pinned(&[]));
    ledger.insert(web.id().clone(), line);
    assert_eq!(ledger.enter(&web, &BASIS, &pinned(&[(0, 7)])).epoch, 8);
}

#[test]
fn a_slot_that_someone_has_is_not_given_away() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &BASIS, &pinned(&[]));
    ledger.insert(web.id().clone(), line);
    let db = unit("db", "role=db", &PuPolicy::unrestricted());
    assert_eq!(ledger.enter(&db, &BASIS, &pinned(&[(1, 1)])).slot, 2);
    ledger.remove(web.id());
    let reused = ledger.enter(&db, &BASIS, &pinned(&[(1, 1)]));
    assert_eq!(
        (reused.slot, reused.epoch),
        (0, 2),
        "what the kernel holds of the old unit counts for nothing"
    );
}

#[test]
fn a_damaged_ledger_is_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("s")).unwrap();
    state.write(FILE, b"{").unwrap();
    let ledger = Ledger::load(&state).unwrap();
    assert_eq!(ledger.ids().count(), 0);
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    assert!(ledger.enter(&web, &BASIS, &pinned(&[])).epoch > 1_000_000, "no epoch that may have been used");
}

#[test]
fn a_unit_that_the_ledger_lost_goes_on_at_its_edge_under_a_new_epoch() {
    let ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let kernel = Pinned { here: Some(3), ..pinned(&[(3, 7)]) };
    let line = ledger.enter(&web, &BASIS, &kernel);
    assert_eq!((line.slot, line.epoch), (3, 8));
    let mut ledger = Ledger::default();
    ledger.insert("db".parse().unwrap(), line);
    assert_eq!(ledger.enter(&web, &BASIS, &kernel).slot, 0, "the slot is another unit's");
}

#[test]
fn the_ledger_of_an_earlier_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("s")).unwrap();
    state.write(FILE, br#"{"web":{"slot":2,"epoch":5,"content":"x"}}"#).unwrap();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = Ledger::load(&state).unwrap().enter(&web, &BASIS, &pinned(&[(2, 5)]));
    assert_eq!((line.slot, line.epoch), (2, 6));
}

#[test]
fn a_changed_deny_list_makes_a_new_epoch() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &BASIS, &pinned(&[]));
    ledger.insert(web.id().clone(), line);
    let denied = DenyList { nodes: ["node-b".parse().unwrap()].into(), ..DenyList::default() };
    let basis = Basis { denied: &denied, ..BASIS };
    assert_eq!(ledger.enter(&web, &basis, &pinned(&[])).epoch, 2);
    let renewed = ledger.renew(&web, &basis).unwrap();
    ledger.insert(web.id().clone(), renewed.clone());
    assert_eq!((renewed.epoch, ledger.enter(&web, &basis, &pinned(&[])).epoch), (2, 2));
}
