//! One `[[pu]]` of the configuration file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trireme::Edge;
use trireme_identity::{PuId, TagSet};

/// A processing unit as the operator wrote it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "Written")]
pub(crate) struct Pu {
    pub(crate) name: PuId,
    pub(crate) tags: TagSet,
    pub(crate) edge: Edge,
    /// Takes the place of the policy's mode.
    pub(crate) mode: Option<PuMode>,
    pub(crate) settings: PuOverrides,
}

/// Settings of `[enforcement]` that one unit has otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PuOverrides {
    pub(crate) authorization: Option<super::Authorization>,
    pub(crate) refusal: Option<super::Refusal>,
    pub(crate) strict_identity: Option<bool>,
    pub(crate) other_protocols: Option<super::OtherProtocols>,
    pub(crate) fast_path: Option<super::FastPath>,
    pub(crate) fail_mode: Option<super::FailModeText>,
    pub(crate) adopt_existing: Option<super::AdoptExisting>,
    pub(crate) on_policy_change: Option<super::OnPolicyChange>,
}

/// What becomes of the unit's verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PuMode {
    Enforce,
    Observe,
    Off,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: PuId,
    tags: TagSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<InterfaceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<PuMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization: Option<super::Authorization>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<super::Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict_identity: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_protocols: Option<super::OtherProtocols>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_path: Option<super::FastPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_mode: Option<super::FailModeText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adopt_existing: Option<super::AdoptExisting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_policy_change: Option<super::OnPolicyChange>,
}

impl TryFrom<Written> for Pu {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { name, tags, interface, netns, device, cgroup, mode, authorization, refusal, .. } =
            written;
        let edge = match (cgroup, interface, netns, device) {
            (Some(path), None, None, None) => Edge::Cgroup { path },
            (Some(_), ..) => {
                return Err(format!(
                    "{name} has cgroup beside interface, netns or device: keep the one its packets pass"
                ));
            }
            (None, Some(interface), None, None) => Edge::Interface(interface.0),
            (None, None, Some(path), device) => Edge::Netns { path, device: device.map(|device| device.0) },
            (None, Some(_), None, Some(_)) => {
                return Err(format!("{name} has interface and device: a device needs netns instead"));
            }
            (None, Some(_), Some(_), _) => {
                return Err(format!("{name} has interface and netns: keep the one its packets pass"));
            }
            (None, None, None, _) => {
                return Err(format!(
                    "{name} has no edge: give interface (the host side of its veth), netns (a path) or cgroup \
                     (processes of the host)"
                ));
            }
        };
        if tags.is_empty() {
            return Err(format!("{name} has no tags: without identity no rule can name it"));
        }
        let settings = PuOverrides {
            authorization,
            refusal,
            strict_identity: written.strict_identity,
            other_protocols: written.other_protocols,
            fast_path: written.fast_path,
            fail_mode: written.fail_mode,
            adopt_existing: written.adopt_existing,
            on_policy_change: written.on_policy_change,
        };
        Ok(Self { name, tags, edge, mode, settings })
    }
}

impl From<Pu> for Written {
    fn from(pu: Pu) -> Self {
        let (interface, netns, device, cgroup) = match pu.edge {
            Edge::Interface(name) => (Some(InterfaceName(name)), None, None, None),
            Edge::Netns { path, device } => (None, Some(path), device.map(InterfaceName), None),
            Edge::Cgroup { path } => (None, None, None, Some(path)),
        };
        Self {
            name: pu.name,
            tags: pu.tags,
            interface,
            netns,
            device,
            cgroup,
            mode: pu.mode,
            authorization: pu.settings.authorization,
            refusal: pu.settings.refusal,
            strict_identity: pu.settings.strict_identity,
            other_protocols: pu.settings.other_protocols,
            fast_path: pu.settings.fast_path,
            fail_mode: pu.settings.fail_mode,
            adopt_existing: pu.settings.adopt_existing,
            on_policy_change: pu.settings.on_policy_change,
        }
    }
}

impl Pu {
    pub(super) fn rebase(&mut self, folder: &Path) {
        match &mut self.edge {
            Edge::Netns { path, device: _ } => super::rebase(folder, path),
            // Of a cgroup a relative path is relative to the root of cgroups.
            Edge::Interface(_) | Edge::Cgroup { path: _ } => {}
        }
    }
}

/// The name of a network interface (at most 15 bytes, as the kernel has it).
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
struct InterfaceName(String);

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = (1..=15).contains(&name.len());
        if fits && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
            return Ok(Self(name));
        }
        Err(format!("an interface name has 1 to 15 characters, none of them '/' or a space, not {name:?}"))
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}
