//! Observe and off.

use trireme_datapath::{EngineConfig, PuSpec};
use trireme_flow::{Action, Reason};
use trireme_policy::{Mode, PuPolicy};
use trireme_wire::tcp::Flags;

use crate::support::*;

fn server_in(mode: Mode) -> PuSpec {
    spec(SERVER, "server", &["role=backend"], &PuPolicy { mode, ..frontends_only() })
}

fn intruder() -> PuSpec {
    spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted())
}

#[test]
fn a_unit_that_is_only_observed_loses_nothing_and_the_would_be_verdict_is_recorded() {
    let mut pair = Pair::with(EngineConfig::default(), intruder(), server_in(Mode::Observe));
    pair.connect();
    pair.assert_talking();
    let record = &pair.server.records[0];
    assert_eq!((record.action, record.observed), (Action::Accept, Some(Action::Reject)));
    assert!(record.explanation.as_deref().unwrap().contains("role=external"));
}

#[test]
fn observed_units_get_stray_segments_too_but_never_tap() {
    let mut pair = Pair::with(EngineConfig::default(), intruder(), server_in(Mode::Observe));
    for flags in [Flags::ACK, PSH_ACK, Flags(0x29), Flags::RST] {
        let stray = segment(&from_client(1, 2, flags));
        assert_eq!(pair.server_gets(&stray).got(), stray, "{flags}");
    }
    let record = &pair.server.records[0];
    assert_eq!(
        (record.action, record.observed, record.reason),
        (Action::Accept, Some(Action::Reject), Reason::Stray)
    );
    let wire = pair.client_sends(&syn()).sent();
    let mut forged = payload(&wire).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(pair.server_gets(&with_payload(&wire, &forged)).got(), syn());
    assert_eq!(pair.server_sends(&syn_ack()).sent(), syn_ack());
}

#[test]
fn a_unit_that_is_off_is_not_touched() {
    let mut pair = Pair::with(EngineConfig::default(), intruder(), server_in(Mode::Off));
    let wire = pair.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire).got(), wire);
    assert_eq!(pair.server_sends(&syn_ack()).sent(), syn_ack());
    let now = pair.now;
    assert_eq!(pair.server.handle(SERVER, trireme_datapath::Hook::ToPu, &[0; 3], now).got(), [0; 3]);
    assert!(pair.server.records.is_empty() && pair.server.stats().reasons.is_empty());
}
