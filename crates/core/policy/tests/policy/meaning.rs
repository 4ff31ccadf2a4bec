//! Clauses, selectors, absence against emptiness, modes, names of the connection's own.

use trireme_identity::{Direction, Protocol};
use trireme_policy::Action::{Accept, Reject};
use trireme_policy::{
    Basis, Clause, CompileError, CompiledPolicy, FlowPolicy, Mode, Peer, PuPolicy, Rule, Ruleset, Selector,
    Service, Services,
};

use crate::{accept, decide, ingress, reject, tags, verdict};

#[test]
fn absent_rules_admit_and_empty_rules_refuse() {
    let unrestricted = decide(&PuPolicy::unrestricted(), &["tier=web"]);
    assert_eq!((unrestricted.action, unrestricted.basis), (Accept, Basis::Unrestricted));
    let empty = decide(&ingress([]), &["tier=web"]);
    assert_eq!((empty.action, empty.basis), (Reject, Basis::Default));
    let egress_only = PuPolicy { egress: Ruleset::Rules(Vec::new()), ..PuPolicy::unrestricted() };
    assert_eq!(decide(&egress_only, &[]).action, Accept);
}

#[test]
fn reject_beats_accept_and_selectors_are_alternatives() {
    let either = Rule::new(
        [Selector::new([Clause::equal("tier", ["web"])]), Selector::new([Clause::equal("tier", ["app"])])],
        Services::Any,
        FlowPolicy::accept().named("p", "either"),
    );
    let policy = ingress([either, reject("a-test", [Clause::equal("env", ["test"])])]);
    assert_eq!(verdict(&decide(&policy, &["tier=web"])), (Accept, Some("either")));
    assert_eq!(verdict(&decide(&policy, &["tier=app", "env=prod"])), (Accept, Some("either")));
    assert_eq!(verdict(&decide(&policy, &["tier=app", "env=test"])), (Reject, Some("a-test")));
    assert_eq!(verdict(&decide(&policy, &["tier=db"])), (Reject, None));
}

#[test]
fn an_empty_selector_selects_every_identity_and_no_selector_nobody() {
    let everyone = ingress([accept("all", [])]);
    assert_eq!(decide(&everyone, &[]).action, Accept);
    let nobody = ingress([Rule::new([], Services::Any, FlowPolicy::accept())]);
    assert_eq!(decide(&nobody, &["tier=web"]).action, Reject);
}

#[test]
fn ports_and_protocols_restrict_a_rule() {
    let ranges = Services::Only(vec![Service::ports(Protocol::TCP, 8000, 8100).unwrap(), Service::udp(53)]);
    let policy = ingress([Rule::new([Selector::default()], ranges, FlowPolicy::accept())]);
    let compiled = CompiledPolicy::compile(&policy).unwrap();
    let nobody = tags(&[]);
    let peer = Peer { tags: &nobody, partial: false };
    let action = |port, protocol| compiled.decide(Direction::Ingress, &peer, port, protocol).action;
    assert_eq!(
        [7999, 8000, 8100, 8101].map(|port| action(port, Protocol::TCP)),
        [Reject, Accept, Accept, Reject]
    );
    assert_eq!([53, 8000].map(|port| action(port, Protocol::UDP)), [Accept, Reject]);
    assert!(compiled.has_rules_for(Direction::Ingress, Protocol::UDP));
    assert!(!compiled.has_rules_for(Direction::Ingress, Protocol::SCTP));
    assert!(!compiled.has_rules_for(Direction::Egress, Protocol::TCP));
}

#[test]
fn a_tag_of_the_peer_never_stands_for_the_destination_port() {
    let services = Services::Only(vec![Service::tcp(443)]);
    let policy = ingress([Rule::new([Selector::default()], services, FlowPolicy::accept())]);
    assert_eq!(decide(&policy, &["@port=443", "@port:tcp=443", "@port:443="]).action, Reject);
    for key in ["@port", "@port:tcp", "@ports"] {
        let error =
            CompiledPolicy::compile(&ingress([accept("r", [Clause::equal(key, ["443"])])])).unwrap_err();
        let rule = "policy \"p\", rule \"r\"".to_owned();
        assert_eq!(error, CompileError::ReservedKey { rule, key: key.to_owned() });
    }
}

#[test]
fn observe_mode_admits_and_tells_the_verdict_and_off_has_none() {
    let mut policy = ingress([reject("no", [Clause::exists("env")])]);
    policy.mode = Mode::Observe;
    let decision = decide(&policy, &["env=test"]);
    assert_eq!(decision.action, Accept);
    let observed = decision.observed.unwrap();
    assert_eq!(
        (observed.action, observed.rule_name.as_deref(), observed.rule_number),
        (Reject, Some("no"), Some(1))
    );
    let unmatched = decide(&policy, &["tier=web"]).observed.unwrap();
    assert_eq!((unmatched.action, unmatched.rule_name), (Reject, None));
    policy.mode = Mode::Off;
    let decision = decide(&policy, &["env=test"]);
    assert_eq!((decision.action, decision.basis, decision.observed), (Accept, Basis::Off, None));
}

#[test]
fn what_cannot_be_enforced_as_stated_does_not_compile() {
    let error = |clause: Clause| CompiledPolicy::compile(&ingress([accept("r", [clause])])).unwrap_err();
    let rule = "policy \"p\", rule \"r\"".to_owned();
    assert_eq!(error(Clause::equal("k", [])), CompileError::NoValues { rule: rule.clone(), key: "k".into() });
    assert_eq!(
        error(Clause::not_equal("k", [])),
        CompileError::NoValues { rule: rule.clone(), key: "k".into() }
    );
    assert_eq!(error(Clause::exists("")), CompileError::EmptyKey { rule });
}

#[test]
fn equal_content_has_an_equal_digest_and_any_change_another() {
    let web = accept("web", [Clause::equal("tier", ["web"]), Clause::exists("env")]);
    let test = reject("test", [Clause::equal("env", ["test"])]);
    let compile = |policy: &PuPolicy| CompiledPolicy::compile(policy).unwrap();
    let one = compile(&ingress([web.clone(), test.clone()]));
    let mut turned = web.clone();
    turned.selectors.iter_mut().for_each(|selector| selector.clauses.reverse());
    let other = compile(&ingress([test.clone(), turned, test.clone()]));
    assert_eq!((one.digest(), &one), (other.digest(), &other));
    let mut logged = web;
    logged.flow.log = true;
    let mut observing = ingress([test.clone()]);
    observing.mode = Mode::Observe;
    let changed = [ingress([test.clone(), logged]), ingress([test]), observing, PuPolicy::deny_all()];
    for policy in &changed {
        assert_ne!(compile(policy).digest(), one.digest());
        assert_ne!(compile(policy), one);
    }
}
