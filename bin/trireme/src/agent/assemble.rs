//! From the configuration to the library's parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use trireme::datapath::bpf::{self, BpfConfig, BpfDatapath, Sizes};
use trireme::datapath::nfqueue::{NfqueueConfig, NfqueueDatapath, RuleBackEnd};
use trireme::{
    Authorize, DenyListFile, FilePolicyResolver, FlowStore, NodeSecrets, NotifyPeer, PuSettings, Refusal,
    StaticMonitor, StaticPu, Strictness, TargetNetworks, Trireme, UnitOverride, UnitSettings,
};
use trireme_policy::Mode;
use trireme_token::{KeyPattern, TagFilter};

use crate::config::{
    AdoptExisting, Authorization, Config, DatapathKind, FastPath, KeyPatternText, Limits, OnPolicyChange,
    OtherProtocols, Pu, PuMode, RulesKind,
};
use crate::exit::{Blame, Failure};

use super::choice::{self, Both, Chosen, Held};

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
    let mut builder = Trireme::builder(config.node.id.clone())
        .secrets(secrets)
        .monitor(StaticMonitor::new(units.collect()))
        .resolver(resolver)
        .collector(flows);
    let with_bpf = |why: &str| BpfDatapath::new(bpf(config)).because(why);
    let with_queues = |why: String| NfqueueDatapath::new(queues(config)).because(why);
    let chosen = choice::choose(config.datapath.kind, Held::of(config), bpf::probe).map_err(both)?;
    builder = match chosen {
        Chosen::Configured(DatapathKind::Nfqueue) => {
            builder.datapath(with_queues("as configured".to_owned()))
        }
        Chosen::Configured(DatapathKind::Bpf | DatapathKind::Auto) => {
            builder.datapath(with_bpf("as configured"))
        }
        Chosen::HoldsUnits(units) => builder
            .datapath(with_queues(format!("chosen because it holds {units} units from an earlier run"))),
        Chosen::BpfWorks => builder.datapath(with_bpf("chosen because the kernel has what it needs")),
        Chosen::NoBpf(error) => {
            builder.datapath(with_queues(format!("chosen because bpf cannot be used: {error}")))
        }
    };
    if let Some(path) = &config.policy.deny_list {
        builder = builder.deny_list(DenyListFile::open(path).usage()?);
    }
    builder.build().context("the agent is not assembled").runtime()
}

/// Units must not be judged twice.
fn both(Both { units, other }: Both) -> Failure {
    Failure::Usage(anyhow::anyhow!(
        "datapath.kind: {units} units are still enforced by {other}: run `trireme agent --cleanup` with \
         kind = \"{other}\" first, or go on with it"
    ))
}

/// The part of the configuration that netfilter queues need.
fn queues(config: &Config) -> NfqueueConfig {
    NfqueueConfig {
        state_dir: config.node.state_dir.clone(),
        verify_threads: size(config.datapath.verify_threads.0),
        queue: config.datapath.queue,
        mark: config.datapath.mark.0,
        rules: match config.datapath.rules {
            RulesKind::Auto => None,
            RulesKind::Nft => Some(RuleBackEnd::Nft),
            RulesKind::IptablesNft => Some(RuleBackEnd::IptablesNft),
            RulesKind::IptablesLegacy => Some(RuleBackEnd::IptablesLegacy),
        },
        payload_limit: config.token.size_budget.bytes(),
        units: config.limits.units.0,
        connections: config.limits.connections.0,
        peers: config.limits.peers.0,
        pair_keys: config.limits.pair_keys.0,
        destinations: config.limits.destinations.0,
    }
}

/// The part of the configuration that programs in the kernel need.
pub(super) fn bpf(config: &Config) -> BpfConfig {
    BpfConfig {
        node: config.node.id.clone(),
        state_dir: config.node.state_dir.clone(),
        bpffs: config.datapath.bpffs.clone(),
        instance: config.datapath.instance.as_str().to_owned(),
        verify_threads: size(config.datapath.verify_threads.0),
        sizes: sizes(&config.limits),
        limits: trireme::datapath::bpf::Limits {
            unknown_per_sec: config.limits.unknown_per_second.0.into(),
            unknown_per_source_per_sec: config.limits.unknown_per_second_and_source.0.into(),
            half_open: config.limits.handshakes_per_unit.0.into(),
            ..trireme::datapath::bpf::Limits::default()
        },
        payload_limit: config.token.size_budget.bytes(),
    }
}

fn sizes(limits: &Limits) -> Sizes {
    Sizes {
        pus: limits.units.0,
        connections: limits.connections.0,
        peers: limits.peers.0,
        pair_keys: limits.pair_keys.0,
        verdicts: limits.verdicts.0,
        destinations: limits.destinations.0,
        refusals: limits.refusals.0,
        handshakes: limits.handshakes.0,
        events: limits.events.0,
        // Mapped twice by the agent, these are most of the memory it seems to take.
        ring_bytes: 2 << 20,
        ..Sizes::default()
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
    let on_policy_change = match own.on_policy_change.unwrap_or(common.on_policy_change) {
        OnPolicyChange::Cut => trireme::OnPolicyChange::Cut,
        OnPolicyChange::Keep => trireme::OnPolicyChange::Keep,
    };
    UnitSettings {
        tcp: PuSettings {
            authorize,
            strictness,
            refusal,
            on_policy_change,
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
        fast_path: match own.fast_path.unwrap_or(common.fast_path) {
            FastPath::On => trireme::FastPath::On,
            FastPath::Off => trireme::FastPath::Off,
        },
        fail_mode: own.fail_mode.unwrap_or(common.fail_mode).0,
        adopt_existing: match own.adopt_existing.unwrap_or(common.adopt_existing) {
            AdoptExisting::Allow => trireme::AdoptExisting::Allow,
            AdoptExisting::Drop => trireme::AdoptExisting::Drop,
        },
    }
}
