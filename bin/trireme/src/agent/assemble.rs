//! From the configuration to the library's parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use trireme::datapath::bpf::{BpfConfig, BpfDatapath};
use trireme::{
    Authorize, FilePolicyResolver, FlowStore, NodeSecrets, NotifyPeer, PuSettings, Refusal, StaticMonitor,
    StaticPu, Strictness, TargetNetworks, Trireme, UnitOverride, UnitSettings,
};
use trireme_policy::Mode;
use trireme_token::{KeyPattern, TagFilter};

use crate::config::{Authorization, Config, KeyPatternText, OtherProtocols, Pu, PuMode};
use crate::exit::{Blame, Failure};

/// Joins the parts; reads the policy file, touches nothing else.
pub(super) fn controller(
    config: &Config,
    secrets: NodeSecrets,
    flows: Arc<FlowStore>,
) -> Result<Trireme, Failure> {
    let units = config.pu.iter().map(|unit| StaticPu {
        id: unit.name.clone(),
        tags: unit.tags.clone(),
        edge: unit.edge.clone(),
    });
    let overrides = config.pu.iter().map(|unit| (unit.name.clone(), unit_override(config, unit)));
    let overrides: BTreeMap<_, _> = overrides.collect();
    let resolver =
        FilePolicyResolver::open(&config.policy.file, settings(config, None), overrides).usage()?;
    Trireme::builder(config.node.id.clone())
        .secrets(secrets)
        .monitor(StaticMonitor::new(units.collect()))
        .resolver(resolver)
        .datapath(BpfDatapath::new(bpf(config)))
        .collector(flows)
        .build()
        .context("the agent is not assembled")
        .runtime()
}

/// The kernel back end's part of the configuration.
pub(super) fn bpf(config: &Config) -> BpfConfig {
    BpfConfig {
        node: config.node.id.clone(),
        state_dir: config.node.state_dir.clone(),
        bpffs: config.datapath.bpffs.clone(),
        instance: config.datapath.instance.as_str().to_owned(),
        verify_threads: size(config.datapath.verify_threads.0),
        connections: config.limits.connections.0,
        payload_limit: config.token.size_budget.bytes(),
    }
}

fn patterns(keys: &[KeyPatternText]) -> Vec<KeyPattern> {
    keys.iter().map(|key| key.0.clone()).collect()
}

/// A configured count as a size.
pub(super) fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn unit_override(config: &Config, unit: &Pu) -> UnitOverride {
    let mode = unit.mode.map(|mode| match mode {
        PuMode::Enforce => Mode::Enforce,
        PuMode::Observe => Mode::Observe,
        PuMode::Off => Mode::Off,
    });
    UnitOverride { mode, settings: Some(settings(config, Some(unit))) }
}

/// The settings of `[enforcement]`, with what one unit has otherwise.
fn settings(config: &Config, unit: Option<&Pu>) -> UnitSettings {
    let own = unit.map(|unit| unit.settings).unwrap_or_default();
    let common = &config.enforcement;
    let authorize = match own.authorization.unwrap_or(common.authorization) {
        Authorization::Mutual => Authorize::Mutual,
        Authorization::ReceiverOnly => Authorize::ReceiverOnly,
    };
    let refusal = match own.refusal.unwrap_or(common.refusal) {
        crate::config::Refusal::Silent => Refusal::Silent,
        crate::config::Refusal::Rst => Refusal::Rst,
        crate::config::Refusal::Icmp => Refusal::Icmp,
    };
    let strictness = if own.strict_identity.unwrap_or(common.strict_identity) {
        Strictness::StrictIdentity
    } else {
        Strictness::Lenient
    };
    let other_protocols = match own.other_protocols.unwrap_or(common.other_protocols) {
        OtherProtocols::Deny => trireme::OtherProtocols::Deny,
        OtherProtocols::Allow => trireme::OtherProtocols::Allow,
    };
    UnitSettings {
        tcp: PuSettings {
            authorize,
            strictness,
            refusal,
            notify_peer: if common.notify_peer { NotifyPeer::WithReason } else { NotifyPeer::Never },
            target_networks: TargetNetworks {
                include: config.network.targets.iter().map(|net| net.0).collect(),
                exclude: config.network.exclude.iter().map(|net| net.0).collect(),
            },
            tag_filter: TagFilter {
                include: config.identity.tags.include.as_ref().map(|keys| patterns(keys)),
                exclude: patterns(&config.identity.tags.exclude),
            },
            ..PuSettings::default()
        },
        other_protocols,
    }
}
