//! The look-up of the system this one re-implements had ten defects; each has its regression test.

use trireme_policy::Action::{Accept, Reject};
use trireme_policy::Clause;

use crate::{accept, decide, ingress, reject, verdict};

#[test]
fn defect_a_two_rules_with_key_exists_on_one_key_do_not_let_one_tag_count_twice() {
    let policy = ingress([
        accept("one", [Clause::exists("role"), Clause::equal("env", ["prod"])]),
        accept("two", [Clause::exists("role"), Clause::equal("env", ["test"])]),
        accept("three", [Clause::prefix("role", ["ad"]), Clause::equal("zone", ["a"])]),
        accept("four", [Clause::prefix("role", ["op"]), Clause::equal("zone", ["b"])]),
    ]);
    assert_eq!(verdict(&decide(&policy, &["role=admin"])), (Reject, None));
    assert_eq!(verdict(&decide(&policy, &["role=admin", "env=test"])), (Accept, Some("two")));
    assert_eq!(verdict(&decide(&policy, &["role=operator", "zone=b"])), (Accept, Some("four")));
}

#[test]
fn defect_b_two_values_of_one_key_do_not_fulfil_two_clauses() {
    let policy = ingress([accept("r", [Clause::equal("role", ["a", "b"]), Clause::equal("env", ["prod"])])]);
    assert_eq!(verdict(&decide(&policy, &["role=a", "role=b"])), (Reject, None));
    assert_eq!(verdict(&decide(&policy, &["role=a", "role=b", "env=prod"])), (Accept, Some("r")));
}

#[test]
fn defect_c_a_value_and_a_prefix_that_both_match_count_as_one_clause() {
    let mut both = Clause::equal("role", ["admin"]);
    if let (trireme_policy::Test::AnyOf(values), trireme_policy::Test::AnyOf(prefixes)) =
        (&mut both.test, Clause::prefix("role", ["adm", "a"]).test)
    {
        values.prefixes = prefixes.prefixes;
    }
    let policy = ingress([accept("r", [both, Clause::equal("env", ["prod"])])]);
    assert_eq!(verdict(&decide(&policy, &["role=admin"])), (Reject, None));
    assert_eq!(verdict(&decide(&policy, &["role=administrator", "env=prod"])), (Accept, Some("r")));
}

#[test]
fn defect_d_no_prefix_length_is_lost_whatever_the_order_of_insertion() {
    let words = ["abcdefghij", "abcdefgh", "abcde", "ab", "abcdef"];
    let policy = ingress(words.iter().map(|word| reject(word, [Clause::prefix("k", [*word])])));
    let names: Vec<Option<String>> = words
        .iter()
        .map(|word| decide(&policy, &[&format!("k={word}")]).rule_name.map(|name| name.to_string()))
        .collect();
    // Every beginning of the value has a rule; the first by name decides, and it is always the shortest one.
    assert_eq!(names, vec![Some("ab".to_owned()); 5]);
    for word in words {
        let alone = ingress(words.iter().map(|other| {
            let clauses = [Clause::prefix("k", [*other]), Clause::equal("rule", [*other])];
            reject(other, clauses)
        }));
        let decision = decide(&alone, &[&format!("k={word}"), &format!("rule={word}")]);
        assert_eq!(verdict(&decision), (Reject, Some(word)));
    }
}

#[test]
fn defect_e_every_rule_of_one_absent_key_is_kept() {
    let policy =
        ingress([accept("one", [Clause::not_exists("a")]), accept("two", [Clause::not_exists("b")])]);
    assert_eq!(verdict(&decide(&policy, &["b=1"])), (Accept, Some("one")));
    assert_eq!(verdict(&decide(&policy, &["a=1"])), (Accept, Some("two")));
    assert_eq!(verdict(&decide(&policy, &["a=1", "b=1"])), (Reject, None));
}

#[test]
fn defect_f_a_rule_of_absent_keys_only_matches() {
    let policy = ingress([accept("r", [Clause::not_exists("a"), Clause::not_exists("b")])]);
    assert_eq!(verdict(&decide(&policy, &["c=1"])), (Accept, Some("r")));
    assert_eq!(verdict(&decide(&policy, &[])), (Accept, Some("r")));
    assert_eq!(verdict(&decide(&policy, &["c=1", "b=1"])), (Reject, None));
}

#[test]
fn defect_g_not_equal_holds_when_the_key_is_absent() {
    let policy = ingress([accept("r", [Clause::not_equal("env", ["prod"])])]);
    assert_eq!(verdict(&decide(&policy, &["tier=web"])), (Accept, Some("r")));
    assert_eq!(verdict(&decide(&policy, &["env=test"])), (Accept, Some("r")));
    assert_eq!(verdict(&decide(&policy, &["env=prod"])), (Reject, None));
}

#[test]
fn defect_h_not_equal_fails_if_any_of_several_values_is_forbidden() {
    let policy = ingress([accept("r", [Clause::not_equal("role", ["x", "y"])])]);
    assert_eq!(verdict(&decide(&policy, &["role=a", "role=y"])), (Reject, None));
    assert_eq!(verdict(&decide(&policy, &["role=x", "role=a"])), (Reject, None));
    assert_eq!(verdict(&decide(&policy, &["role=a", "role=b"])), (Accept, Some("r")));
}

#[test]
fn defect_i_an_empty_value_makes_its_key_exist_once() {
    let policy = ingress([accept("r", [Clause::exists("k"), Clause::equal("env", ["prod"])])]);
    assert_eq!(verdict(&decide(&policy, &["k="])), (Reject, None));
    assert_eq!(verdict(&decide(&policy, &["k=", "env=prod"])), (Accept, Some("r")));
    let empty = ingress([accept("r", [Clause::equal("k", [""])])]);
    assert_eq!(verdict(&decide(&empty, &["k="])), (Accept, Some("r")));
    assert_eq!(verdict(&decide(&empty, &["k=x"])), (Reject, None));
}

#[test]
fn defect_j_the_rule_reported_does_not_depend_on_the_order_of_tags_or_rules() {
    let one = accept("one", [Clause::equal("a", ["1"])]);
    let two = accept("two", [Clause::equal("b", ["1"])]);
    let three = accept("three", [Clause::not_equal("c", ["1"])]);
    for rules in [[&one, &two, &three], [&three, &two, &one], [&two, &three, &one]] {
        let policy = ingress(rules.into_iter().cloned());
        for tags in [["a=1", "b=1"], ["b=1", "a=1"]] {
            let decision = decide(&policy, &tags);
            assert_eq!((verdict(&decision), decision.rule_number), ((Accept, Some("one")), Some(1)));
        }
    }
}
