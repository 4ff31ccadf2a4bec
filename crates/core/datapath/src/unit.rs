//! Processing units as the engine is told about them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use trireme_flow::PuSlot;
use trireme_identity::{Direction, Protocol, PuId, TagSet};
use trireme_policy::{CompiledPolicy, Mode};
use trireme_token::{IssueError, TagFilter};

/// A processing unit to be enforced.
#[derive(Clone, Debug)]
pub struct PuSpec {
    /// The number under which the back end reports its packets.
    pub slot: PuSlot,
    /// Its name.
    pub id: PuId,
    /// Its identity, before tag filters.
    pub tags: TagSet,
    /// What it may do.
    pub policy: Arc<CompiledPolicy>,
    /// The number of this version of policy and tags; entries of another epoch are judged again.
    pub epoch: u32,
    /// How it is enforced.
    pub settings: PuSettings,
}

/// How a processing unit is enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PuSettings {
    /// Which side of a connection authorizes.
    pub authorize: Authorize,
    /// What happens to peers without identity inside the target networks.
    pub strictness: Strictness,
    /// What the sender of a refused connection gets to see.
    pub refusal: Refusal,
    /// Whether the peer's enforcer is told about a refusal.
    pub notify_peer: NotifyPeer,
    /// What happens to live connections after a change.
    pub on_policy_change: OnPolicyChange,
    /// Towards which addresses identity is sent.
    pub target_networks: TargetNetworks,
    /// Which tags go into the unit's token.
    pub tag_filter: TagFilter,
    /// What becomes of protocols that no rule speaks about.
    pub other_protocols: OtherProtocols,
    /// Packets between the unit's own addresses: to be judged where others share the addresses, as on a host.
    pub to_itself: Essential,
    /// DHCP: to be judged where others see to the unit's addresses, as in a container.
    pub dhcp: Essential,
}

/// What becomes of protocols other than TCP that no rule speaks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherProtocols {
    /// UDP, ICMP, SCTP, UDP-Lite and DCCP are judged as the policy judges what no rule speaks about; others are refused.
    #[default]
    Deny,
    /// They pass unjudged.
    Allow,
}

/// Whether packets that some units cannot live without are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Essential {
    /// By the policy, like all others.
    #[default]
    Judged,
    /// They always pass.
    Passes,
}

impl PuSpec {
    /// Whether packets of the protocol are judged in this direction.
    ///
    /// A setting for what no rule speaks about says nothing once a rule does.
    #[must_use]
    pub fn judges(&self, direction: Direction, protocol: Protocol) -> bool {
        protocol == Protocol::TCP
            || self.settings.other_protocols == OtherProtocols::Deny
            || self.policy.has_rules_for(direction, protocol)
    }

    /// Whether any packet but those of TCP needs the engine: if not, a back end may let them all pass.
    #[must_use]
    pub fn judges_other_protocols(&self) -> bool {
        judges_other_protocols(&self.policy, self.settings.other_protocols)
    }
}

/// [`PuSpec::judges_other_protocols`] of a unit with this policy and setting.
#[must_use]
pub fn judges_other_protocols(policy: &CompiledPolicy, other_protocols: OtherProtocols) -> bool {
    let has_rules = |direction| policy.has_rules_beyond(direction, Protocol::TCP);
    policy.mode() != Mode::Off
        && (other_protocols == OtherProtocols::Deny
            || has_rules(Direction::Ingress)
            || has_rules(Direction::Egress))
}

/// Which side of a connection authorizes; both always authenticate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authorize {
    /// Both: the initiator judges the responder by its own transmitter rules.
    #[default]
    Mutual,
    /// The receiver only: the initiator skips its policy, never the authentication.
    ReceiverOnly,
}

/// What happens to peers without identity inside the target networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// The IP rules decide; a downgrade is counted and recorded.
    #[default]
    Lenient,
    /// No identity, no entry, whatever the IP rules say.
    StrictIdentity,
}

/// What the stack that opened a refused connection gets to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: it runs into its timeout.
    #[default]
    Silent,
    /// A TCP reset: "connection refused" at once.
    Rst,
    /// An ICMP error: administratively prohibited.
    Icmp,
}

/// Whether the peer's enforcer is told about a refusal by a kind-4 message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifyPeer {
    /// It is not told.
    #[default]
    Never,
    /// It is told reason and rule, protected by a MAC; its stack still sees what [`Refusal`] says.
    WithReason,
}

/// What happens to live connections when policy or identity change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPolicyChange {
    /// They are judged again, and cut if they are no longer allowed.
    #[default]
    Cut,
    /// They go on under the judgement they began with.
    Keep,
}

/// The networks towards which identity is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetNetworks {
    /// Identity is sent towards these,
    pub include: Vec<IpNet>,
    /// except towards these.
    pub exclude: Vec<IpNet>,
}

impl TargetNetworks {
    /// Whether identity is sent towards this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.include.iter().any(|net| net.contains(&address))
            && !self.exclude.iter().any(|net| net.contains(&address))
    }
}

/// Private (RFC 1918), shared (RFC 6598), unique local, link-local and loopback addresses.
impl Default for TargetNetworks {
    fn default() -> Self {
        let nets = [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "127.0.0.0/8",
            "fc00::/7",
            "fe80::/10",
            "::1/128",
        ];
        Self { include: nets.iter().filter_map(|net| net.parse().ok()).collect(), exclude: Vec::new() }
    }
}

/// Why a processing unit was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum PuError {
    /// No token could be made for it, for instance because its tags exceed the size budget.
    #[error("no token for processing unit {id}")]
    Token {
        /// The unit.
        id: PuId,
        /// What went wrong.
        #[source]
        source: IssueError,
    },
    /// There is no room for another unit.
    #[error("the engine holds at most {0} processing units")]
    Full(usize),
}
