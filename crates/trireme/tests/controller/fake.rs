//! A data path and a monitor for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use trireme::{
    BoxFuture, Collector, Datapath, DatapathError, DatapathReport, Edge, Enforced, Enforcement, Events,
    Monitor, MonitorError, NodeSecrets, Pu, SecretsKind, StaticMonitor, StaticPu,
};
use trireme_identity::{PuId, TagSet};
use trireme_token::{DenyList, Encoding, Psk, Signer, Verifier};

/// What the data path was asked; `Supervise` with the number of ingress rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Check,
    CheckUnit(String),
    Start,
    Supervise(String, usize),
    Release(String),
    /// With the number of nodes.
    Deny(usize),
    Stop,
}

/// Everything the data path was asked, in order.
#[derive(Clone, Default)]
pub(crate) struct Log {
    calls: Arc<Mutex<Vec<Call>>>,
    broken: Arc<Notify>,
}

impl Log {
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    pub(crate) fn last_rules(&self, name: &str) -> Option<usize> {
        let calls = self.calls.lock().unwrap();
        calls.iter().rev().find_map(|call| {
            if let Call::Supervise(unit, rules) = call
                && unit == name
            {
                return Some(*rules);
            }
            None
        })
    }

    pub(crate) fn break_down(&self) {
        self.broken.notify_one();
    }

    fn push(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

/// Refuses units by their names: `bad-edge` when checked, `bad-attach` when supervised.
pub(crate) struct FakeDatapath {
    log: Log,
}

impl FakeDatapath {
    pub(crate) fn new(log: &Log) -> Self {
        Self { log: log.clone() }
    }

    fn refuse(unit: &Enforcement, name: &str) -> Result<(), DatapathError> {
        if unit.id().as_str() == name {
            return Err(DatapathError::Unit { id: unit.id().clone(), source: "no such edge".into() });
        }
        Ok(())
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Datapath for FakeDatapath {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn check<'a>(&'a mut self, _secrets: &'a NodeSecrets) -> BoxFuture<'a, Result<(), DatapathError>> {
        self.log.push(Call::Check);
        ready(Ok(()))
    }

    fn check_unit<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<(), DatapathError>> {
        self.log.push(Call::CheckUnit(unit.id().to_string()));
        ready(Self::refuse(unit, "bad-edge"))
    }

    fn start(
        &mut self,
        _secrets: NodeSecrets,
        _collector: Arc<dyn Collector>,
    ) -> BoxFuture<'_, Result<(), DatapathError>> {
        self.log.push(Call::Start);
        ready(Ok(()))
    }

    fn supervise<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<Enforced, DatapathError>> {
        let rules = unit.policy.source().ingress.rules().len();
        self.log.push(Call::Supervise(unit.id().to_string(), rules));
        ready(Self::refuse(unit, "bad-attach").map(|()| Enforced { epoch: 1 }))
    }

    fn release<'a>(&'a mut self, id: &'a PuId) -> BoxFuture<'a, Result<(), DatapathError>> {
        self.log.push(Call::Release(id.to_string()));
        ready(Ok(()))
    }

    fn release_strangers(&mut self) -> BoxFuture<'_, Result<Vec<PuId>, DatapathError>> {
        ready(Ok(Vec::new()))
    }

    fn set_secrets(&mut self, _secrets: NodeSecrets) -> BoxFuture<'_, Result<(), DatapathError>> {
        ready(Ok(()))
    }

    fn set_deny_list(
        &mut self,
        list: DenyList,
    ) -> BoxFuture<'_, Result<BTreeMap<PuId, Enforced>, DatapathError>> {
        self.log.push(Call::Deny(list.nodes.len()));
        ready(Ok(BTreeMap::from([("back".parse().unwrap(), Enforced { epoch: 9 })])))
    }

    fn report(&mut self) -> BoxFuture<'_, Result<DatapathReport, DatapathError>> {
        ready(Ok(DatapathReport::default()))
    }

    fn broken(&mut self) -> BoxFuture<'_, DatapathError> {
        let broken = Arc::clone(&self.log.broken);
        Box::pin(async move {
            broken.notified().await;
            DatapathError::Stopped
        })
    }

    fn stop(self: Box<Self>, _deadline: Duration) -> BoxFuture<'static, Result<(), DatapathError>> {
        self.log.push(Call::Stop);
        ready(Ok(()))
    }
}

/// Hands its channel to the test.
pub(crate) struct Feed {
    pub(crate) units: Vec<Pu>,
    events: Option<oneshot::Sender<Events>>,
}

impl Feed {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Events>) {
        let (events, receiver) = oneshot::channel();
        (Self { units: Vec::new(), events: Some(events) }, receiver)
    }
}

impl Monitor for Feed {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn existing(&mut self) -> BoxFuture<'_, Result<Vec<Pu>, MonitorError>> {
        ready(Ok(self.units.clone()))
    }

    fn run(
        mut self: Box<Self>,
        events: Events,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), MonitorError>> {
        if let Some(sender) = self.events.take() {
            drop(sender.send(events));
        }
        Box::pin(async move {
            stop.cancelled().await;
            Ok(())
        })
    }
}

/// A unit whose tier is `backend` for the name `back`, and its own name else.
pub(crate) fn pu(name: &str) -> Pu {
    let tier = if name == "back" { "tier=backend".to_owned() } else { format!("tier={name}") };
    let unit = StaticPu {
        id: name.parse().unwrap(),
        tags: TagSet::parse([tier.as_str()]).unwrap(),
        edge: Edge::Interface("veth0".to_owned()),
    };
    futures(StaticMonitor::new(vec![unit]).existing()).unwrap().remove(0)
}

/// Finishes a future that is ready at once.
fn futures<T>(mut future: BoxFuture<'_, T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("not ready"),
    }
}

pub(crate) fn secrets() -> NodeSecrets {
    let psk = Psk::from_text("5b1a0c0fffe0b4f0d3c2b1a09f8e7d6c").unwrap();
    NodeSecrets {
        kind: SecretsKind::Psk,
        signer: Arc::new(Signer::psk("node".parse().unwrap(), psk.clone())),
        verifier: Arc::new(Verifier::psk(psk)),
        encoding: Encoding::Cwt,
        lifetime_secs: 600,
    }
}
