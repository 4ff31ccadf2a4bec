use std::sync::Arc;

use trireme_identity::TagSet;
use trireme_policy::{CompiledPolicy, PuPolicy};

use super::*;
use crate::{Authorize, Edge, Monitor, StaticMonitor, StaticPu, UnitSettings};

const KEY: KeyId = KeyId([1; 32]);

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
    let first = ledger.enter(&web, &KEY, &BTreeMap::new());
    assert_eq!((first.slot, first.epoch), (0, 1));
    ledger.insert(web.id().clone(), first.clone());
    ledger.save(&state).unwrap();

    let restarted = Ledger::load(&state).unwrap();
    let pinned = BTreeMap::from([(0, 1)]);
    assert_eq!(restarted.enter(&web, &KEY, &pinned), first);
    assert_eq!(restarted.enter(&unit("web", "role=web", &PuPolicy::deny_all()), &KEY, &pinned).epoch, 2);
    assert_eq!(
        restarted.enter(&unit("web", "role=web,a=b", &PuPolicy::unrestricted()), &KEY, &pinned).epoch,
        2
    );
    let mut stricter = unit("web", "role=web", &PuPolicy::unrestricted());
    stricter.settings.tcp.authorize = Authorize::ReceiverOnly;
    assert_eq!(restarted.enter(&stricter, &KEY, &pinned).epoch, 2);
}

#[test]
fn other_secrets_make_a_new_epoch() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &KEY, &BTreeMap::new());
    ledger.insert(web.id().clone(), line);
    assert_eq!(ledger.enter(&web, &KeyId([2; 32]), &BTreeMap::new()).epoch, 2);
    ledger.invalidate();
    assert_eq!(ledger.enter(&web, &KEY, &BTreeMap::new()).epoch, 2);
}

#[test]
fn an_epoch_that_the_kernel_does_not_confirm_is_not_kept() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &KEY, &BTreeMap::new());
    ledger.insert(web.id().clone(), line);
    assert_eq!(ledger.enter(&web, &KEY, &BTreeMap::from([(0, 7)])).epoch, 8);
}

#[test]
fn a_slot_that_someone_has_is_not_given_away() {
    let mut ledger = Ledger::default();
    let web = unit("web", "role=web", &PuPolicy::unrestricted());
    let line = ledger.enter(&web, &KEY, &BTreeMap::new());
    ledger.insert(web.id().clone(), line);
    let db = unit("db", "role=db", &PuPolicy::unrestricted());
    assert_eq!(ledger.enter(&db, &KEY, &BTreeMap::from([(1, 1)])).slot, 2);
    ledger.remove(web.id());
    assert_eq!(ledger.enter(&db, &KEY, &BTreeMap::from([(1, 1)])).slot, 0);
}

#[test]
fn a_damaged_ledger_is_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("s")).unwrap();
    state.write(FILE, b"{").unwrap();
    assert_eq!(Ledger::load(&state).unwrap().ids().count(), 0);
}
