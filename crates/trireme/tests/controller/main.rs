//! The controller with a data path that only remembers what it was asked.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod fake;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use trireme::{
    Edge, EventError, FilePolicyResolver, FlowStore, PuChange, PuError, PuEvent, Question, ReloadError,
    Running, StartError, StaticMonitor, StaticPu, Trireme, UnitState,
};
use trireme_identity::{Protocol, TagSet};

use fake::{Call, FakeDatapath, Feed, Log, secrets};

const POLICY: &str = "apiVersion: trireme/v1\npolicies:\n  - name: backend\n    subject: {tier: backend}\n    \
                      ingress:\n      - name: web\n        from: [{tier: frontend}]\n        ports: [80/tcp]\n";

const CLOSED: &str =
    "apiVersion: trireme/v1\npolicies:\n  - name: none\n    subject: {tier: backend}\n    ingress: []\n";

#[tokio::test]
async fn everything_is_checked_before_the_data_path_starts() {
    let stage = Stage::new();
    let log = Log::default();
    let error =
        stage.trireme(&log, &["front", "bad-edge"], FakeDatapath::new(&log)).start().await.unwrap_err();
    assert!(matches!(&error, StartError::Pu(PuError::Datapath(_))), "{error:?}");
    assert_eq!(
        log.take(),
        [Call::Check, Call::CheckUnit("front".into()), Call::CheckUnit("bad-edge".into())]
    );
}

#[tokio::test]
async fn a_check_gives_the_warnings_and_starts_nothing() {
    let stage = Stage::new();
    let log = Log::default();
    let warnings = stage.trireme(&log, &["front"], FakeDatapath::new(&log)).check().await.unwrap();
    let codes: Vec<&str> = warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["empty-policy", "psk"]);
    assert_eq!(log.take(), [Call::Check, Call::CheckUnit("front".into())]);
}

#[tokio::test]
async fn a_unit_that_the_kernel_refuses_takes_back_the_units_before_it() {
    let stage = Stage::new();
    let log = Log::default();
    let error = stage.trireme(&log, &["front", "bad-attach"], FakeDatapath::new(&log)).start().await;
    assert!(matches!(error, Err(StartError::Pu(PuError::Datapath(_)))), "{error:?}");
    let calls = log.take();
    let end = calls.split_off_from(&Call::Start);
    assert_eq!(
        end,
        [
            Call::Start,
            Call::Supervise("front".into(), 0),
            Call::Supervise("bad-attach".into(), 0),
            Call::Release("front".into()),
            Call::Stop
        ]
    );
}

#[tokio::test]
async fn two_units_of_one_name_are_refused() {
    let stage = Stage::new();
    let log = Log::default();
    let error = stage.trireme(&log, &["front", "front"], FakeDatapath::new(&log)).start().await.unwrap_err();
    assert!(matches!(error, StartError::Pu(PuError::Duplicate(_))), "{error:?}");
}

#[tokio::test]
async fn a_changed_policy_file_reaches_the_data_path_and_a_bad_one_does_not() {
    let stage = Stage::new();
    let log = Log::default();
    let running = stage.start(&log, &["back"]).await;
    assert_eq!(log.last_rules("back"), Some(1));
    stage.write(CLOSED);
    wait(|| log.last_rules("back") == Some(0)).await;

    stage.write("apiVersion: trireme/v1\npolicies: 7\n");
    let handle = running.handle();
    let mut status = handle.status().await.unwrap();
    for _ in 0..200 {
        if status.policy.error.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = handle.status().await.unwrap();
    }
    let error = status.policy.error.unwrap();
    assert!(error.contains("policy.yaml:2:"), "{error}");
    assert_eq!((status.policy.revision, log.last_rules("back")), (2, Some(0)));

    let refused = handle.reload().await;
    assert!(matches!(refused, Err(ReloadError::Refused(_))), "{refused:?}");
    stage.write(POLICY);
    handle.reload().await.unwrap();
    assert_eq!(log.last_rules("back"), Some(1));
    running.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(log.take().last(), Some(&Call::Stop));
}

#[tokio::test]
async fn a_changed_policy_file_is_enforced_without_delay() {
    let stage = Stage::new();
    let log = Log::default();
    let running = stage.start(&log, &["back"]).await;
    let mut times = Vec::new();
    for rules in [0, 1].into_iter().cycle().take(20) {
        let text = if rules == 1 { POLICY } else { CLOSED };
        let start = std::time::Instant::now();
        stage.write(text);
        while log.last_rules("back") != Some(rules) && start.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times.iter().rev().nth(1).is_some_and(|time| *time < Duration::from_millis(50)), "{times:?}");
    running.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_changed_deny_list_reaches_the_data_path_and_a_bad_one_does_not() {
    let stage = Stage::new();
    let log = Log::default();
    let path = stage.folder.path().join("deny-list");
    std::fs::write(&path, "node a\n").unwrap();
    let secrets = secrets();
    let running = Trireme::builder("node".parse().unwrap())
        .secrets(secrets.clone())
        .monitor(StaticMonitor::new(vec![StaticPu {
            id: "back".parse().unwrap(),
            tags: TagSet::parse(["tier=backend"]).unwrap(),
            edge: Edge::Interface("veth0".to_owned()),
        }]))
        .resolver(stage.resolver())
        .datapath(FakeDatapath::new(&log))
        .deny_list(trireme::DenyListFile::open(&path).unwrap())
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    assert_eq!(secrets.verifier.deny_list().nodes.len(), 1, "in force before anything is verified");
    log.take();
    trireme::deny_file::append(&path, &"node b".parse().unwrap()).unwrap();
    wait(|| log.take().contains(&Call::Deny(2))).await;
    std::fs::write(&path, "node a\nnobody\n").unwrap();
    let handle = running.handle();
    for _ in 0..200 {
        let status = handle.status().await.unwrap();
        let list = status.deny_list.unwrap();
        if let Some(error) = list.error {
            assert!(error.contains("deny-list:2: an entry is"), "{error}");
            assert_eq!(list.entries, 2);
            assert_eq!(status.units.first().unwrap().epoch, 9, "the epoch that the data path gave");
            assert_eq!(log.take(), []);
            return running.stop(Duration::from_secs(5)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the bad list is not told");
}

#[tokio::test]
async fn events_of_a_monitor_are_carried_out_in_turn_and_answered() {
    let stage = Stage::new();
    let log = Log::default();
    let (feed, events) = Feed::new();
    let flows = Arc::new(FlowStore::new(8));
    let running = Trireme::builder("node".parse().unwrap())
        .secrets(secrets())
        .monitor(feed)
        .resolver(stage.resolver())
        .datapath(FakeDatapath::new(&log))
        .collector(Arc::clone(&flows) as Arc<dyn trireme::Collector>)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let events = events.await.unwrap();
    let pu = fake::pu("back");
    log.take();
    events.send(PuEvent::Create(pu.id.clone(), pu.runtime.clone())).await.unwrap();
    events.send(PuEvent::Start(pu.clone())).await.unwrap();
    events.send(PuEvent::Update(pu.id.clone(), pu.runtime.clone())).await.unwrap();
    events.send(PuEvent::Stop(pu.id.clone())).await.unwrap();
    events.send(PuEvent::Destroy(pu.id.clone())).await.unwrap();
    let unknown = events.send(PuEvent::Stop(pu.id.clone())).await;
    assert!(matches!(unknown, Err(EventError::Pu(PuError::Unknown(_)))), "{unknown:?}");
    let bad = events.send(PuEvent::Start(fake::pu("bad-attach"))).await;
    assert!(matches!(bad, Err(EventError::Pu(PuError::Datapath(_)))), "{bad:?}");
    assert_eq!(
        log.take(),
        [
            Call::Supervise("back".into(), 1),
            Call::Supervise("back".into(), 1),
            Call::Release("back".into()),
            Call::Release("back".into()),
            Call::Supervise("bad-attach".into(), 0),
        ]
    );
    let changes: Vec<PuChange> = flows.pu_events().iter().map(|record| record.change).collect();
    assert_eq!(
        changes,
        [
            PuChange::Created,
            PuChange::Started,
            PuChange::Stopped,
            PuChange::Stopped,
            PuChange::Destroyed,
            PuChange::Failed
        ]
    );
    let status = running.handle().status().await.unwrap();
    let states: Vec<_> = status.units.iter().map(|unit| (unit.id.as_str(), unit.state)).collect();
    assert_eq!(states, [("bad-attach", UnitState::Failed)]);
    running.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn found_units_fail_alone() {
    let stage = Stage::new();
    let log = Log::default();
    let (mut feed, _events) = Feed::new();
    feed.units = vec![fake::pu("bad-edge"), fake::pu("bad-attach"), fake::pu("front")];
    let running = Trireme::builder("node".parse().unwrap())
        .secrets(secrets())
        .monitor(feed)
        .resolver(stage.resolver())
        .datapath(FakeDatapath::new(&log))
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let status = running.handle().status().await.unwrap();
    let states: Vec<_> = status.units.iter().map(|unit| (unit.id.as_str(), unit.state)).collect();
    assert_eq!(
        states,
        [("bad-attach", UnitState::Failed), ("bad-edge", UnitState::Failed), ("front", UnitState::Enforced)]
    );
    assert!(status.units.iter().all(|unit| (unit.state == UnitState::Failed) == unit.error.is_some()));
    running.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_broken_data_path_is_reported_to_the_owner() {
    let stage = Stage::new();
    let log = Log::default();
    let mut running = stage.start(&log, &["front"]).await;
    log.break_down();
    let failure = tokio::time::timeout(Duration::from_secs(5), running.failed()).await.unwrap();
    assert_eq!(failure.to_string(), "task controller failed");
    assert!(running.handle().status().await.is_none());
}

#[tokio::test]
async fn a_question_is_answered_from_the_policy_in_force() {
    let stage = Stage::new();
    let log = Log::default();
    let running = stage.start(&log, &["front"]).await;
    let question = |from: &str, port| Question {
        from: TagSet::parse([from]).unwrap(),
        to: TagSet::parse(["tier=backend"]).unwrap(),
        port,
        protocol: Protocol::TCP,
    };
    let handle = running.handle();
    let verdicts = async |question| handle.explain(&question).await.unwrap().map(|opinion| opinion.accepts);
    assert_eq!(verdicts(question("tier=frontend", 80)).await, [true, true]);
    assert_eq!(verdicts(question("tier=frontend", 81)).await, [true, false]);
    assert_eq!(verdicts(question("tier=external", 80)).await, [true, false]);
    running.stop(Duration::from_secs(5)).await.unwrap();
}

struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        stage.write(POLICY);
        stage
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("policy.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn resolver(&self) -> FilePolicyResolver {
        FilePolicyResolver::open(&self.path(), Default::default(), Default::default()).unwrap()
    }

    fn trireme(&self, log: &Log, units: &[&str], datapath: FakeDatapath) -> Trireme {
        log.take();
        let units = units.iter().map(|name| {
            let pu = fake::pu(name);
            StaticPu { id: pu.id, tags: pu.runtime.tags, edge: Edge::Interface("veth0".to_owned()) }
        });
        Trireme::builder("node".parse().unwrap())
            .secrets(secrets())
            .monitor(StaticMonitor::new(units.collect()))
            .resolver(self.resolver())
            .datapath(datapath)
            .build()
            .unwrap()
    }

    async fn start(&self, log: &Log, units: &[&str]) -> Running {
        self.trireme(log, units, FakeDatapath::new(log)).start().await.unwrap()
    }
}

async fn wait(mut met: impl FnMut() -> bool) {
    for _ in 0..500 {
        if met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not met within 5 s");
}

/// The calls from the first one equal to a mark on.
trait SplitOff {
    fn split_off_from(self, mark: &Call) -> Vec<Call>;
}

impl SplitOff for Vec<Call> {
    fn split_off_from(mut self, mark: &Call) -> Vec<Call> {
        let at = self.iter().position(|call| call == mark).unwrap();
        self.split_off(at)
    }
}
