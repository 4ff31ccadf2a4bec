//! An agent's settings, written as its own configuration file.

use std::path::{Path, PathBuf};

use crate::lab::Pu;

/// What distinguishes one agent of a test from another; everything else keeps the program's defaults.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node id, as certified.
    pub node: String,
    /// How nodes prove who they are.
    pub trust: Trust,
    /// `cwt` or `jwt`.
    pub encoding: &'static str,
    /// `mutual` or `receiver-only`.
    pub authorization: &'static str,
    /// `silent`, `rst` or `icmp`.
    pub refusal: &'static str,
    /// `deny` or `allow`, for everything that is not TCP.
    pub other_protocols: &'static str,
    /// `bpf` or `nfqueue`.
    pub datapath: &'static str,
    /// More lines of the section `[datapath]`.
    pub datapath_more: String,
    /// Whether target networks admit only identities.
    pub strict_identity: bool,
    /// Seconds a token lives.
    pub lifetime_secs: u64,
    /// `error` to `trace`; tests read the log, benchmarks must not pay for it.
    pub log_level: &'static str,
    /// Whether a deny list is read; it is empty at first.
    pub deny_list: bool,
    /// More lines of the section `[enforcement]`.
    pub enforcement: String,
    /// More lines at the end of the file, sections that are not written otherwise.
    pub more: String,
    /// The policy file's text.
    pub policy: String,
    /// Workloads with their tags.
    pub pus: Vec<(Pu, Vec<String>)>,
}

/// How nodes prove who they are.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One key for all, handed over in the environment.
    Psk(String),
    /// A key per node.
    Pki {
        /// The node's private key.
        key: PathBuf,
        /// What it sends along.
        credential: Credential,
        /// Whom it believes.
        roots: Vec<Root>,
        /// Public keys of peers it knows already.
        peers_dir: Option<PathBuf>,
    },
}

/// What a node sends beside its tokens.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Its certificate.
    Certificate(PathBuf),
    /// Its compact key token.
    KeyToken(PathBuf),
    /// Nothing.
    PrePopulated,
}

/// An authority that is believed.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its name here.
    pub name: String,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Tags its nodes may claim, if not all.
    pub allow: Option<Vec<String>>,
}

impl AgentConfig {
    /// Settings with the program's defaults.
    #[must_use]
    pub fn new(node: &str, trust: Trust, policy: &str) -> Self {
        Self {
            node: node.to_owned(),
            trust,
            encoding: "cwt",
            authorization: "mutual",
            refusal: "silent",
            other_protocols: "deny",
            datapath: "bpf",
            datapath_more: String::new(),
            strict_identity: false,
            lifetime_secs: 600,
            log_level: "debug",
            deny_list: false,
            enforcement: String::new(),
            more: String::new(),
            policy: policy.to_owned(),
            pus: Vec::new(),
        }
    }

    /// Logs warnings only.
    #[must_use]
    pub const fn quiet(mut self) -> Self {
        self.log_level = "warn";
        self
    }

    /// Adds a workload.
    #[must_use]
    pub fn with(mut self, pu: &Pu, tags: &[&str]) -> Self {
        self.pus.push((pu.clone(), tags.iter().map(|tag| (*tag).to_owned()).collect()));
        self
    }

    pub(super) fn to_toml(&self, instance: &str, bpffs: &Path) -> String {
        let Self {
            node,
            datapath,
            datapath_more,
            trust,
            encoding,
            authorization,
            refusal,
            other_protocols,
            strict_identity,
            lifetime_secs,
            log_level,
            deny_list,
            enforcement,
            more,
            policy: _,
            pus,
        } = self;
        let mut text = format!(
            "[node]\nid = {}\nstate_dir = \"state\"\nsocket = \"agent.sock\"\n\n\
             [datapath]\nkind = \"{datapath}\"\ninstance = {}\nbpffs = {}\n{datapath_more}\n\
             [token]\nencoding = {}\nlifetime_secs = {lifetime_secs}\n\n\
             [enforcement]\nauthorization = {}\nrefusal = {}\nother_protocols = {}\n\
             strict_identity = {strict_identity}\n{enforcement}\n\
             [policy]\nfile = \"policy.yaml\"\n{}\n[log]\nlevel = \"{log_level}\"\n\n{}\n{more}",
            quote(node),
            quote(instance),
            quote_path(bpffs),
            quote(encoding),
            quote(authorization),
            quote(refusal),
            quote(other_protocols),
            if *deny_list { "deny_list = \"deny-list\"\n" } else { "" },
            trust.to_toml()
        );
        for (pu, tags) in pus {
            text.push_str(&format!(
                "\n[[pu]]\nname = {}\ninterface = {}\ntags = {}\n",
                quote(&pu.name),
                quote(&pu.interface),
                list(tags)
            ));
        }
        text
    }
}

impl Trust {
    fn to_toml(&self) -> String {
        match self {
            Self::Psk(_) => "[secrets.psk]\n".to_owned(),
            Self::Pki { key, credential, roots, peers_dir } => {
                let credential = match credential {
                    Credential::Certificate(path) => format!("{{ certificate = {} }}", quote_path(path)),
                    Credential::KeyToken(path) => format!("{{ key_token = {} }}", quote_path(path)),
                    Credential::PrePopulated => quote("pre-populated"),
                };
                let mut text =
                    format!("[secrets.pki]\nkey = {}\ncredential = {credential}\n", quote_path(key));
                if let Some(dir) = peers_dir {
                    text.push_str(&format!("peers_dir = {}\n", quote_path(dir)));
                }
                for Root { name, certificate, allow } in roots {
                    text.push_str(&format!(
                        "\n[[secrets.pki.roots]]\nname = {}\ncertificate = {}\n",
                        quote(name),
                        quote_path(certificate)
                    ));
                    if let Some(allow) = allow {
                        text.push_str(&format!("allow = {}\n", list(allow)));
                    }
                }
                text
            }
        }
    }
}

fn list(items: &[String]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(", "))
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
