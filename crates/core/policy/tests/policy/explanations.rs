//! Why a decision is what it is.

use trireme_identity::{Direction, Protocol};
use trireme_policy::{
    Action, Basis, Clause, ClosestRule, CompiledPolicy, Explanation, FailedCondition, FlowPolicy, IpRule,
    Mode, Peer, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};

use crate::{accept, ingress, tags};

fn explain(policy: &PuPolicy, list: &[&str], partial: bool) -> Explanation {
    let tags = tags(list);
    CompiledPolicy::compile(policy).unwrap().explain(
        Direction::Ingress,
        &Peer { tags: &tags, partial },
        80,
        Protocol::TCP,
    )
}

fn web() -> PuPolicy {
    let services = Services::Only(vec![Service::tcp(80)]);
    let selector = Selector::new([Clause::equal("tier", ["web", "app"]), Clause::not_equal("env", ["test"])]);
    ingress([
        Rule::new([selector], services, FlowPolicy::accept().named("backend", "from-web")),
        Rule::new(
            [Selector::new([Clause::exists("debug"), Clause::equal("user", ["root"])])],
            Services::Only(vec![Service::tcp(22)]),
            FlowPolicy::accept().named("backend", "shell"),
        ),
    ])
}

#[test]
fn a_refusal_names_the_closest_rule_and_the_missing_attribute() {
    let explanation = explain(&web(), &["tier=db"], false);
    assert_eq!(
        (explanation.action, explanation.basis, explanation.rule.clone()),
        (Action::Reject, Basis::Default, None)
    );
    assert_eq!(
        explanation.closest,
        Some(ClosestRule {
            policy_id: Some("backend".into()),
            rule_name: Some("from-web".into()),
            rule_number: Some(1),
            matched: vec!["env != test".into(), "covers 80/tcp".into()],
            failed: vec![FailedCondition {
                wanted: "tier in (app, web)".into(),
                found: "the peer has tier=db".into()
            }],
        })
    );
    assert_eq!(
        explanation.to_string(),
        "ingress refused: no rule admits it; closest is rule \"from-web\" of policy \"backend\" (rule 1), \
         which wants tier in (app, web), but the peer has tier=db"
    );
    let absent = explain(&web(), &[], false).closest.unwrap();
    assert_eq!(absent.failed.first().unwrap().found, "the peer has no tag tier");
}

#[test]
fn an_admission_names_the_rule_and_the_clauses_that_matched() {
    let explanation = explain(&web(), &["tier=web", "env=prod"], false);
    assert_eq!(
        explanation.to_string(),
        "ingress admitted by rule \"from-web\" of policy \"backend\" (rule 1): env != test, tier in (app, web), covers 80/tcp"
    );
    assert_eq!(explanation.closest, None);
}

#[test]
fn a_hidden_tag_is_named_as_the_cause() {
    let closest = explain(&web(), &["tier=web"], true).closest.unwrap();
    assert_eq!(
        closest.failed,
        [FailedCondition {
            wanted: "env != test".into(),
            found: "the peer shows only part of its tags, and none for env".into()
        }]
    );
}

#[test]
fn a_wrong_port_is_a_failed_condition() {
    let mut policy = web();
    if let Ruleset::Rules(rules) = &mut policy.ingress {
        rules.iter_mut().for_each(|rule| rule.services = Services::Only(vec![Service::tcp(443)]));
    }
    let closest = explain(&policy, &["tier=web", "env=prod"], false).closest.unwrap();
    assert_eq!(
        closest.failed,
        [FailedCondition { wanted: "443/tcp".into(), found: "the connection is to 80/tcp".into() }]
    );
}

#[test]
fn addresses_are_explained_too() {
    let net = "10.0.0.0/8".parse().unwrap();
    let policy = PuPolicy {
        network_acls: Ruleset::Rules(vec![IpRule::new(
            [net],
            Services::Any,
            FlowPolicy::accept().named("lan", "ten"),
        )]),
        ..PuPolicy::unrestricted()
    };
    let compiled = CompiledPolicy::compile(&policy).unwrap();
    let explain = |address: &str| {
        compiled.explain_ip(Direction::Ingress, address.parse().unwrap(), 80, Protocol::TCP).to_string()
    };
    assert_eq!(
        explain("10.0.0.1"),
        "ingress admitted by rule \"ten\" of policy \"lan\" (rule 1): an address in 10.0.0.0/8, covers every port"
    );
    assert_eq!(
        explain("192.0.2.1"),
        "ingress refused: no rule admits it; closest is rule \"ten\" of policy \"lan\" (rule 1), \
         which wants an address in 10.0.0.0/8, but the peer's address is 192.0.2.1"
    );
}

#[test]
fn directions_without_policy_and_policies_without_force_say_so() {
    assert_eq!(
        explain(&PuPolicy::unrestricted(), &[], false).to_string(),
        "ingress admitted: no policy restricts this direction"
    );
    let mut policy = ingress([]);
    policy.mode = Mode::Observe;
    assert_eq!(
        explain(&policy, &[], false).to_string(),
        "ingress refused: no rule admits it; not enforced, the policy only observes"
    );
    let everyone = ingress([accept("all", [])]);
    assert_eq!(
        explain(&everyone, &[], false).to_string(),
        "ingress admitted by rule \"all\" of policy \"p\" (rule 1): any identity, covers every port"
    );
}
