//! How long one judgement takes with few and with many rules: `cargo bench -p trireme-policy`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use trireme_identity::{Direction, Protocol, Tag, TagSet};
use trireme_policy::{
    Action, Clause, CompiledPolicy, FlowPolicy, Peer, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};

/// Number `index` of a policy as clusters have it: an application and an environment may use one port.
fn rule(index: usize) -> Rule {
    let app = format!("app-{index}");
    let selector = Selector::new([Clause::equal("app", [app.as_str()]), Clause::equal("env", ["prod"])]);
    let port = Service::tcp(8000 + u16::try_from(index % 100).unwrap_or_default());
    Rule::new([selector], Services::Only(vec![port]), FlowPolicy::accept().named("bench", &app))
}

/// Tags as a pod has them.
fn peer(app: usize) -> Result<TagSet, trireme_identity::TagError> {
    let app = format!("app-{app}");
    let tags = [
        ("app", app.as_str()),
        ("env", "prod"),
        ("k8s-namespace", "shop"),
        ("k8s-serviceaccount", "default"),
        ("pod-template-hash", "5c8f7d6b9d"),
        ("role", "frontend"),
        ("team", "checkout"),
        ("version", "v42"),
    ];
    tags.into_iter().map(|(key, value)| Tag::new(key, value)).collect()
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for rules in [10_usize, 1000, 10_000] {
        let policy =
            PuPolicy { ingress: Ruleset::Rules((0..rules).map(rule).collect()), ..PuPolicy::unrestricted() };
        let (Ok(policy), Ok(tags)) = (CompiledPolicy::compile(&policy), peer(rules / 2)) else { return };
        let port = 8000 + u16::try_from(rules / 2 % 100).unwrap_or_default();
        let peer = Peer { tags: &tags, partial: false };
        let judge = |port| policy.decide(Direction::Ingress, &peer, port, Protocol::TCP);
        assert_eq!((judge(port).action, judge(1).action), (Action::Accept, Action::Reject));
        group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
            bencher.iter(|| judge(black_box(port)));
        });
        group.bench_function(BenchmarkId::new("refused", rules), |bencher| {
            bencher.iter(|| judge(black_box(1)));
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
