//! Values of the configuration file that check themselves while they are read.

use serde::{Deserialize, Serialize};
use trireme::datapath::nfqueue::{FieldError, MarkField};
use trireme_runtime::{LogFormat, LogLevel};
use trireme_token::{
    DEFAULT_LIFETIME_SECS, DEFAULT_PAYLOAD_LIMIT, Encoding, KeyPattern, MAX_LIFETIME_SECS, MIN_LIFETIME_SECS,
    PatternError,
};

/// Which back end enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DatapathKind {
    #[default]
    Auto,
    Bpf,
    Nfqueue,
}

/// How the rules of the nfqueue data path are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RulesKind {
    /// Whatever the kernel and the unit's namespace have.
    #[default]
    Auto,
    Nft,
    IptablesNft,
    IptablesLegacy,
}

/// Bits of a packet mark, like `0xffff0000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MarkText(pub(crate) MarkField);

impl Default for MarkText {
    /// Room for as many changes of policy as a connection may sleep through.
    fn default() -> Self {
        Self(MarkField::UPPER_HALF)
    }
}

impl TryFrom<String> for MarkText {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        text.parse().map(Self)
    }
}

impl From<MarkText> for String {
    fn from(MarkText(field): MarkText) -> Self {
        field.to_string()
    }
}

/// Who judges a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Authorization {
    #[default]
    Mutual,
    ReceiverOnly,
}

/// What an unauthorized SYN gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Refusal {
    #[default]
    Silent,
    Rst,
    Icmp,
}

/// What becomes of a unit's traffic that is not TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OtherProtocols {
    #[default]
    Deny,
    Allow,
}

/// Where handshakes of known identities are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FastPath {
    #[default]
    On,
    Off,
}

/// What becomes of connections that are older than their unit's first enforcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AdoptExisting {
    #[default]
    Allow,
    Drop,
}

/// What becomes of live connections when policy or identity change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnPolicyChange {
    #[default]
    Cut,
    Keep,
}

/// The form of the tokens this node sends; both are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingName {
    Cwt,
    Jwt,
}

impl From<EncodingName> for Encoding {
    fn from(name: EncodingName) -> Self {
        match name {
            EncodingName::Cwt => Self::Cwt,
            EncodingName::Jwt => Self::Jwt,
        }
    }
}

/// Seconds a token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct LifetimeSecs(pub(crate) u64);

impl Default for LifetimeSecs {
    fn default() -> Self {
        Self(DEFAULT_LIFETIME_SECS)
    }
}

impl TryFrom<u64> for LifetimeSecs {
    type Error = String;

    fn try_from(secs: u64) -> Result<Self, String> {
        if (MIN_LIFETIME_SECS..=MAX_LIFETIME_SECS).contains(&secs) {
            return Ok(Self(secs));
        }
        Err(format!(
            "a token lives {MIN_LIFETIME_SECS} to {MAX_LIFETIME_SECS} seconds (1 minute to 24 hours), not {secs}"
        ))
    }
}

impl From<LifetimeSecs> for u64 {
    fn from(lifetime: LifetimeSecs) -> Self {
        lifetime.0
    }
}

/// Bytes the whole payload of a handshake segment may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct BudgetBytes(u16);

/// Below this not even a token without tags fits.
const MIN_BUDGET: u16 = 400;

/// What fits a segment of an Ethernet frame with the longest headers.
const MAX_BUDGET: u16 = 1380;

impl BudgetBytes {
    pub(crate) const fn bytes(self) -> u16 {
        self.0
    }
}

impl Default for BudgetBytes {
    fn default() -> Self {
        Self(u16::try_from(DEFAULT_PAYLOAD_LIMIT).unwrap_or(MAX_BUDGET))
    }
}

impl TryFrom<u64> for BudgetBytes {
    type Error = String;

    fn try_from(bytes: u64) -> Result<Self, String> {
        match u16::try_from(bytes) {
            Ok(bytes) if (MIN_BUDGET..=MAX_BUDGET).contains(&bytes) => Ok(Self(bytes)),
            _ => Err(format!(
                "the budget is {MIN_BUDGET} to {MAX_BUDGET} bytes (default {DEFAULT_PAYLOAD_LIMIT}), not {bytes}"
            )),
        }
    }
}

impl From<BudgetBytes> for u64 {
    fn from(budget: BudgetBytes) -> Self {
        budget.0.into()
    }
}

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<const MIN: u32, const MAX: u32> TryFrom<u64> for Count<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        match u32::try_from(number) {
            Ok(count) if (MIN..=MAX).contains(&count) => Ok(Self(count)),
            _ => Err(format!("a number from {MIN} to {MAX} is needed, not {number}")),
        }
    }
}

impl<const MIN: u32, const MAX: u32> From<Count<MIN, MAX>> for u64 {
    fn from(count: Count<MIN, MAX>) -> Self {
        count.0.into()
    }
}

/// A name that is part of paths and map names in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct InstanceName(String);

impl InstanceName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl TryFrom<String> for InstanceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = (1..=32).contains(&name.len());
        let mut characters = name.chars();
        if fits && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            return Ok(Self(name));
        }
        Err(format!("an instance name is 1 to 32 of a-z, 0-9 and '-', not {name:?}"))
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0
    }
}

/// A tag key, or the beginning of one followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct KeyPatternText(pub(crate) KeyPattern);

impl TryFrom<String> for KeyPatternText {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse().map(Self)
    }
}

impl From<KeyPatternText> for String {
    fn from(pattern: KeyPatternText) -> Self {
        pattern.0.to_string()
    }
}

/// The least severe event that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LevelName {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl From<LevelName> for LogLevel {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Error => Self::Error,
            LevelName::Warn => Self::Warn,
            LevelName::Info => Self::Info,
            LevelName::Debug => Self::Debug,
            LevelName::Trace => Self::Trace,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormatName {
    #[default]
    Text,
    Json,
}

impl From<LogFormatName> for LogFormat {
    fn from(name: LogFormatName) -> Self {
        match name {
            LogFormatName::Text => Self::Text,
            LogFormatName::Json => Self::Json,
        }
    }
}
