//! decide() as the criterion benchmark of trireme-policy calls it.

use std::hint::black_box;

use anyhow::{Context, ensure};
use trireme_identity::{Direction, Protocol, TagSet};
use trireme_policy::{
    Action, Clause, CompiledPolicy, FlowPolicy, Peer, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};

use super::{CALLS, measured_section};

/// A peer that the middle one of so many rules admits.
pub(super) fn decide(rules: u16) -> anyhow::Result<()> {
    let policy =
        PuPolicy { ingress: Ruleset::Rules((0..rules).map(rule).collect()), ..PuPolicy::unrestricted() };
    let policy = CompiledPolicy::compile(&policy)?;
    let app = format!("app=app-{}", rules / 2);
    let tags = TagSet::parse([
        app.as_str(),
        "env=prod",
        "k8s-namespace=shop",
        "k8s-serviceaccount=default",
        "pod-template-hash=5c8f7d6b9d",
        "role=frontend",
        "team=checkout",
        "version=v42",
    ])
    .context("the peer's tags")?;
    let peer = Peer { tags: &tags, partial: false };
    let port = 8000 + rules / 2 % 100;
    for _ in 0..CALLS {
        let decision =
            measured_section(|| policy.decide(Direction::Ingress, black_box(&peer), port, Protocol::TCP));
        ensure!(decision.action == Action::Accept, "the peer is not admitted");
    }
    Ok(())
}

fn rule(index: u16) -> Rule {
    let app = format!("app-{index}");
    let selector = Selector::new([Clause::equal("app", [app.as_str()]), Clause::equal("env", ["prod"])]);
    let services = Services::Only(vec![Service::tcp(8000 + index % 100)]);
    Rule::new([selector], services, FlowPolicy::accept().named("bench", &app))
}
