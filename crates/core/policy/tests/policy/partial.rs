//! Peers whose token shows only part of their tags.

use trireme_policy::Action::{Accept, Reject};
use trireme_policy::{Clause, FlowPolicy, Order, PuPolicy, RuleAction, TierDefault};

use crate::{accept, decide, decide_partial, ingress, reject, rule, verdict};

#[test]
fn a_negative_clause_on_an_absent_key_never_admits_a_partial_peer() {
    for clause in [Clause::not_equal("env", ["test"]), Clause::not_exists("env")] {
        let policy = ingress([accept("r", [Clause::equal("tier", ["web"]), clause])]);
        assert_eq!(verdict(&decide(&policy, &["tier=web"])), (Accept, Some("r")));
        assert_eq!(verdict(&decide_partial(&policy, &["tier=web"])), (Reject, None));
    }
}

#[test]
fn a_negative_clause_on_an_absent_key_always_refuses_a_partial_peer() {
    for clause in [Clause::not_equal("cleared", ["yes"]), Clause::not_exists("cleared")] {
        let policy = ingress([accept("a", []), reject("r", [Clause::equal("tier", ["web"]), clause])]);
        assert_eq!(verdict(&decide_partial(&policy, &["tier=web"])), (Reject, Some("r")));
        assert_eq!(verdict(&decide_partial(&policy, &["tier=app"])), (Accept, Some("a")));
        assert_eq!(verdict(&decide_partial(&policy, &["tier=web", "cleared=yes"])), (Accept, Some("a")));
    }
}

#[test]
fn a_key_shown_or_listed_as_complete_is_judged_as_it_stands() {
    let mut policy = ingress([accept("r", [Clause::not_equal("env", ["test"])])]);
    assert_eq!(verdict(&decide_partial(&policy, &["env=prod"])), (Accept, Some("r")));
    assert_eq!(verdict(&decide_partial(&policy, &["env=test"])), (Reject, None));
    policy.complete_keys.insert("env".into());
    assert_eq!(verdict(&decide_partial(&policy, &["tier=web"])), (Accept, Some("r")));
    policy.complete_keys = std::iter::once("tier".into()).collect();
    assert_eq!(verdict(&decide_partial(&policy, &["tier=web"])), (Reject, None));
}

#[test]
fn a_pass_that_a_hidden_tag_could_undo_is_taken_the_way_that_is_worse_for_the_peer() {
    // The pass would lead to a tier that refuses: then the accept behind it does not count.
    let pass = rule("pass", RuleAction::Pass, [Clause::not_exists("trusted")]);
    let mut later = accept("later", []);
    later.order = Order { tier: 0, priority: 1 };
    let two_tiers = |below: TierDefault, rules: Vec<trireme_policy::Rule>| {
        let mut policy: PuPolicy = ingress(rules);
        policy.tiers.ingress = vec![TierDefault::Pass, below];
        policy
    };
    let refusing = two_tiers(TierDefault::Reject, vec![pass.clone(), later.clone()]);
    assert_eq!(verdict(&decide_partial(&refusing, &["a=1"])), (Reject, None));
    assert_eq!(verdict(&decide_partial(&refusing, &["trusted=yes"])), (Accept, Some("later")));
    let admitting = two_tiers(TierDefault::Accept, vec![pass.clone(), later.clone()]);
    assert_eq!(verdict(&decide_partial(&admitting, &["a=1"])), (Accept, Some("later")));
    // The pass would lead to a tier that admits: then the reject behind it counts.
    later.flow = FlowPolicy::reject().named("p", "later");
    let rejecting = two_tiers(TierDefault::Accept, vec![pass, later]);
    assert_eq!(verdict(&decide_partial(&rejecting, &["a=1"])), (Reject, Some("later")));
    assert_eq!(verdict(&decide(&rejecting, &["a=1"])), (Accept, None));
}
