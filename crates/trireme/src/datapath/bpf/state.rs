//! A unit as the programs have to know it.

use trireme_bpf::{Mode, OtherProtocols, OwnTokenState, PuState};

use crate::{Enforcement, FailMode, FastPath, OnPolicyChange};

pub(super) fn of(unit: &Enforcement, epoch: u32, own: [Option<OwnTokenState>; 2]) -> PuState {
    let mode = unit.policy.mode();
    PuState {
        epoch,
        mode: match mode {
            trireme_policy::Mode::Off => Mode::Off,
            // Observed connections are judged by the engine too: that is how the verdict gets into the records.
            trireme_policy::Mode::Enforce | trireme_policy::Mode::Observe => Mode::Enforce,
        },
        other_protocols: if unit.judges_other_protocols() {
            OtherProtocols::Deny
        } else {
            OtherProtocols::Allow
        },
        fast: mode == trireme_policy::Mode::Enforce && unit.settings.fast_path == FastPath::On,
        keep: unit.settings.tcp.on_policy_change == OnPolicyChange::Keep,
        fail: match unit.settings.fail_mode {
            _ if unit.fails_open() => trireme_bpf::FailMode::Open,
            FailMode::Closed => trireme_bpf::FailMode::Closed,
            FailMode::LastKnownFor(time) => trireme_bpf::FailMode::LastKnown(time),
            FailMode::Open => trireme_bpf::FailMode::Open,
        },
        own,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trireme_policy::{CompiledPolicy, PuPolicy};

    use super::*;
    use crate::{Edge, Monitor, StaticMonitor, StaticPu, UnitSettings};

    async fn unit(mode: trireme_policy::Mode, settings: UnitSettings) -> Enforcement {
        let unit = StaticPu {
            id: "web".parse().unwrap(),
            tags: trireme_identity::TagSet::parse(["role=web"]).unwrap(),
            edge: Edge::Interface("veth0".to_owned()),
        };
        let pu = StaticMonitor::new(vec![unit]).existing().await.unwrap().remove(0);
        let policy = PuPolicy { mode, ..PuPolicy::deny_all() };
        Enforcement {
            identity: pu.runtime.tags.clone(),
            annotations: trireme_identity::TagSet::new(),
            policy: Arc::new(CompiledPolicy::compile(&policy).unwrap()),
            settings,
            pu,
        }
    }

    #[tokio::test]
    async fn only_enforced_units_are_judged_in_the_kernel_and_fail_closed() {
        use trireme_policy::Mode::{Enforce, Observe, Off};
        let time = std::time::Duration::from_secs(60);
        let settings = UnitSettings { fail_mode: FailMode::LastKnownFor(time), ..UnitSettings::default() };
        let enforced = of(&unit(Enforce, settings.clone()).await, 7, [None; 2]);
        assert_eq!((enforced.epoch, enforced.fast), (7, true));
        assert_eq!(enforced.fail, trireme_bpf::FailMode::LastKnown(time));
        for mode in [Observe, Off] {
            let loose = of(&unit(mode, settings.clone()).await, 7, [None; 2]);
            assert_eq!((loose.fast, loose.fail), (false, trireme_bpf::FailMode::Open));
        }
        let slow = UnitSettings { fast_path: FastPath::Off, ..UnitSettings::default() };
        let slow = of(&unit(Enforce, slow).await, 7, [None; 2]);
        assert_eq!((slow.fast, slow.fail), (false, trireme_bpf::FailMode::Closed));
    }
}
