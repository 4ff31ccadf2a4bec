//! Processing units named in the configuration.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;
use trireme_identity::{PuId, PuKind, PuRuntime, TagSet};

use super::{Edge, Events, Monitor, MonitorError, Pu, Startup};
use crate::BoxFuture;

/// One processing unit as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPu {
    /// Its id.
    pub id: PuId,
    /// Its identity.
    pub tags: TagSet,
    /// Where its packets are caught.
    pub edge: Edge,
}

/// Reports a fixed list of units; nothing changes while it runs.
#[derive(Debug)]
pub struct StaticMonitor {
    units: Vec<StaticPu>,
}

impl StaticMonitor {
    /// A monitor of these units.
    #[must_use]
    pub const fn new(units: Vec<StaticPu>) -> Self {
        Self { units }
    }
}

impl Monitor for StaticMonitor {
    fn name(&self) -> &'static str {
        "static"
    }

    fn startup(&self) -> Startup {
        Startup::AllOrNothing
    }

    fn existing(&mut self) -> BoxFuture<'_, Result<Vec<Pu>, MonitorError>> {
        let units = self.units.iter().map(describe).collect();
        Box::pin(std::future::ready(Ok(units)))
    }

    fn run(
        self: Box<Self>,
        _events: Events,
        _stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), MonitorError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn describe(unit: &StaticPu) -> Pu {
    let (interface, netns) = match &unit.edge {
        Edge::Interface(name) => (Some(name.clone()), None),
        Edge::Netns { path, device } => (device.clone(), Some(path.clone())),
        Edge::Cgroup { path: _ } => (None, None),
    };
    Pu {
        id: unit.id.clone(),
        edge: unit.edge.clone(),
        runtime: PuRuntime {
            name: unit.id.to_string(),
            kind: PuKind::Static,
            pid: None,
            netns,
            interface,
            addresses: BTreeMap::new(),
            image: None,
            user: None,
            tags: unit.tags.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn units_are_reported_with_their_edge_and_tags() {
        let tags = TagSet::parse(["role=web"]).unwrap();
        let edge = Edge::Netns { path: "/run/netns/web".into(), device: None };
        let unit = StaticPu { id: "web".parse().unwrap(), tags: tags.clone(), edge: edge.clone() };
        let found = StaticMonitor::new(vec![unit]).existing().await.unwrap();
        let [pu] = found.as_slice() else { panic!("one unit, got {found:?}") };
        assert_eq!((pu.id.as_str(), &pu.edge, &pu.runtime.tags), ("web", &edge, &tags));
        assert_eq!(pu.runtime.netns.as_deref(), Some(std::path::Path::new("/run/netns/web")));
    }
}
