//! Where the node's keys are. Key material itself is never written in the configuration file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trireme_token::{PatternError, TagPattern};

/// How nodes prove who they are.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "Written")]
pub(crate) enum Secrets {
    Psk(Psk),
    Pki(Pki),
}

impl Default for Secrets {
    fn default() -> Self {
        Self::Psk(Psk { file: None })
    }
}

/// One key for all nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Psk {
    /// Absent: the environment variable `TRIREME_PSK`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
}

/// A key per node, vouched for by authorities.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pki {
    pub(crate) key: PathBuf,
    pub(crate) credential: CredentialSource,
    /// Public keys of peers that send no credential, `<node id>.pem` each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peers_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) roots: Vec<Root>,
}

/// What this node sends beside its tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CredentialSource {
    /// Its X.509 certificate.
    Certificate(PathBuf),
    /// Its compact key token.
    #[serde(rename = "key_token")]
    KeyToken(PathBuf),
    /// Nothing: peers hold its public key already.
    PrePopulated,
}

/// An authority whose nodes are believed, within bounds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    /// Becomes the tag `@trust=<name>` of every identity it vouches for.
    pub(crate) name: String,
    pub(crate) certificate: PathBuf,
    /// Tags its nodes may claim; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<Vec<TagPatternText>>,
}

/// `key`, `key=value` or `key=prefix*`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct TagPatternText(pub(crate) TagPattern);

impl TryFrom<String> for TagPatternText {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse().map(Self)
    }
}

impl From<TagPatternText> for String {
    fn from(pattern: TagPatternText) -> Self {
        pattern.0.to_string()
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    psk: Option<Psk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pki: Option<Pki>,
}

impl TryFrom<Written> for Secrets {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match (written.psk, written.pki) {
            (Some(psk), None) => Ok(Self::Psk(psk)),
            (None, Some(pki)) if pki.roots.is_empty() && pki.peers_dir.is_none() => Err(
                "pki trusts nobody: add [[secrets.pki.roots]] (a CA certificate) or peers_dir (peers' keys)"
                    .to_owned(),
            ),
            (None, Some(pki)) => Ok(Self::Pki(pki)),
            (None, None) => Err("write [secrets.psk] or [secrets.pki]".to_owned()),
            (Some(_), Some(_)) => Err("psk and pki exclude each other: keep one".to_owned()),
        }
    }
}

impl From<Secrets> for Written {
    fn from(secrets: Secrets) -> Self {
        match secrets {
            Secrets::Psk(psk) => Self { psk: Some(psk), pki: None },
            Secrets::Pki(pki) => Self { psk: None, pki: Some(pki) },
        }
    }
}

impl Secrets {
    pub(super) fn rebase(&mut self, folder: &Path) {
        match self {
            Self::Psk(psk) => psk.file.iter_mut().for_each(|file| super::rebase(folder, file)),
            Self::Pki(pki) => {
                super::rebase(folder, &mut pki.key);
                pki.peers_dir.iter_mut().for_each(|dir| super::rebase(folder, dir));
                match &mut pki.credential {
                    CredentialSource::Certificate(path) | CredentialSource::KeyToken(path) => {
                        super::rebase(folder, path);
                    }
                    CredentialSource::PrePopulated => {}
                }
                for root in &mut pki.roots {
                    super::rebase(folder, &mut root.certificate);
                }
            }
        }
    }
}
