//! Tiers, priorities, passing on, and rules that only observe.

use trireme_policy::Action::{Accept, Reject};
use trireme_policy::{
    Action, Basis, Clause, Decision, Observe, Order, PuPolicy, Rule, RuleAction, TierDefault,
};

use crate::{accept, decide, ingress, reject, rule, verdict};

fn at(tier: u8, priority: u32, mut rule: Rule) -> Rule {
    rule.order = Order { tier, priority };
    rule
}

fn observing(observe: Observe, mut rule: Rule) -> Rule {
    rule.flow.observe = observe;
    rule
}

fn tiered(defaults: &[TierDefault], rules: impl IntoIterator<Item = Rule>) -> PuPolicy {
    let mut policy = ingress(rules);
    policy.tiers.ingress = defaults.to_vec();
    policy
}

fn observed(decision: &Decision) -> Option<(Action, Option<&str>)> {
    decision.observed.as_ref().map(|observed| (observed.action, observed.rule_name.as_deref()))
}

#[test]
fn a_lower_priority_number_decides_before_a_higher_one() {
    let policy = ingress([at(0, 5, accept("first", [])), at(0, 6, reject("second", []))]);
    assert_eq!(verdict(&decide(&policy, &[])), (Accept, Some("first")));
    let equal = ingress([at(0, 5, accept("first", [])), at(0, 5, reject("second", []))]);
    assert_eq!(verdict(&decide(&equal, &[])), (Reject, Some("second")));
}

#[test]
fn a_pass_skips_the_rest_of_its_tier_and_nothing_else() {
    let kubernetes = [TierDefault::Pass, TierDefault::Pass, TierDefault::Accept];
    let rules = [
        at(0, 1, rule("admin-pass", RuleAction::Pass, [Clause::equal("env", ["prod"])])),
        at(0, 2, reject("admin-deny", [])),
        at(1, 0, accept("network", [Clause::equal("tier", ["web"])])),
        at(2, 0, reject("baseline", [Clause::equal("tier", ["db"])])),
    ];
    let policy = tiered(&kubernetes, rules);
    assert_eq!(verdict(&decide(&policy, &["env=test"])), (Reject, Some("admin-deny")));
    assert_eq!(verdict(&decide(&policy, &["env=prod", "tier=web"])), (Accept, Some("network")));
    assert_eq!(verdict(&decide(&policy, &["env=prod", "tier=db"])), (Reject, Some("baseline")));
    assert_eq!(verdict(&decide(&policy, &["env=prod"])), (Accept, None));
    assert_eq!(decide(&policy, &["env=prod"]).basis, Basis::Default);
}

#[test]
fn behind_the_last_tier_stands_a_refusal() {
    let policy = tiered(
        &[TierDefault::Pass],
        [at(0, 0, rule("pass", RuleAction::Pass, [])), at(0, 0, accept("a", []))],
    );
    assert_eq!(verdict(&decide(&policy, &[])), (Reject, None));
    assert_eq!(verdict(&decide(&tiered(&[], []), &[])), (Reject, None));
}

#[test]
fn an_observing_rule_reports_and_never_shadows_a_real_one() {
    let policy = ingress([
        at(0, 0, observing(Observe::Continue, reject("watch", [Clause::exists("env")]))),
        at(0, 1, accept("real", [])),
    ]);
    let decision = decide(&policy, &["env=prod"]);
    assert_eq!(verdict(&decision), (Accept, Some("real")));
    assert_eq!(observed(&decision), Some((Reject, Some("watch"))));
    assert_eq!(observed(&decide(&policy, &["tier=web"])), None);
}

#[test]
fn an_observing_rule_that_would_not_have_been_reached_reports_nothing() {
    let policy = ingress([
        at(0, 0, accept("real", [])),
        at(0, 1, observing(Observe::Continue, reject("watch", []))),
        at(0, 0, observing(Observe::Continue, accept("same-place", [Clause::exists("same")]))),
    ]);
    assert_eq!(observed(&decide(&policy, &[])), None);
    assert_eq!(observed(&decide(&policy, &["same="])), Some((Accept, Some("same-place"))));
    let unmatched = ingress([at(0, 9, observing(Observe::Continue, accept("watch", [])))]);
    let decision = decide(&unmatched, &[]);
    assert_eq!((verdict(&decision), observed(&decision)), ((Reject, None), Some((Accept, Some("watch")))));
}

#[test]
fn an_applied_observation_acts_only_in_place_of_the_default() {
    let policy = ingress([
        at(0, 0, observing(Observe::Apply, accept("apply", []))),
        at(0, 7, reject("real", [Clause::exists("env")])),
    ]);
    assert_eq!(verdict(&decide(&policy, &["env=x"])), (Reject, Some("real")));
    assert_eq!(observed(&decide(&policy, &["env=x"])), None);
    let decision = decide(&policy, &["tier=web"]);
    assert_eq!(
        (verdict(&decision), observed(&decision)),
        ((Accept, Some("apply")), Some((Accept, Some("apply"))))
    );
}

#[test]
fn tiers_that_do_not_exist_and_observed_passes_do_not_compile() {
    use trireme_policy::{CompileError, CompiledPolicy};
    let label = "policy \"p\", rule \"r\"".to_owned();
    let error = CompiledPolicy::compile(&ingress([at(1, 0, accept("r", []))])).unwrap_err();
    assert_eq!(error, CompileError::UnknownTier { rule: label.clone(), tier: 1, tiers: 1 });
    let pass = observing(Observe::Continue, rule("r", RuleAction::Pass, []));
    assert_eq!(
        CompiledPolicy::compile(&ingress([pass])).unwrap_err(),
        CompileError::ObservedPass { rule: label }
    );
}
