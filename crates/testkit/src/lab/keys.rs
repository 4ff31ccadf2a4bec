//! Keys of the laboratory's nodes, made by the program's own `keys` command.

use std::path::{Path, PathBuf};

use super::{AgentProgram, Credential, LabError, Root, Trust};

/// A certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    name: String,
    base: PathBuf,
    program: AgentProgram,
}

/// What one node got from it.
#[derive(Clone, Debug)]
pub struct NodeKeys {
    /// The private key.
    pub key: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its compact key token.
    pub key_token: PathBuf,
    /// The bare public key.
    pub public: PathBuf,
}

impl Authority {
    /// Makes an authority in a directory.
    ///
    /// # Errors
    /// [`LabError::Command`] if the program refuses.
    pub fn create(program: &AgentProgram, dir: &Path, name: &str) -> Result<Self, LabError> {
        let base = dir.join(name);
        program.run(&["keys", "ca", "--name", name, "--out", &base.to_string_lossy()])?;
        Ok(Self { name: name.to_owned(), base, program: program.clone() })
    }

    /// Makes keys for a node that may claim these tags; none means all.
    ///
    /// # Errors
    /// [`LabError::Command`] if the program refuses.
    pub fn issue(&self, node: &str, allow: &[&str]) -> Result<NodeKeys, LabError> {
        self.issue_as(node, node, allow)
    }

    /// As [`Authority::issue`], in files with a name of their own.
    ///
    /// # Errors
    /// [`LabError::Command`] if the program refuses.
    pub fn issue_as(&self, node: &str, file: &str, allow: &[&str]) -> Result<NodeKeys, LabError> {
        let base = with_ending(&self.base, &format!("-{file}"));
        let (ca, out) = (self.base.to_string_lossy(), base.to_string_lossy());
        let mut arguments = vec!["keys", "node", "--id", node, "--ca", &ca, "--out", &out];
        for pattern in allow {
            arguments.extend(["--allow", pattern]);
        }
        self.program.run(&arguments)?;
        Ok(NodeKeys {
            key: with_ending(&base, ".key.pem"),
            certificate: with_ending(&base, ".cert.pem"),
            key_token: with_ending(&base, ".token.pem"),
            public: with_ending(&base, ".pub.pem"),
        })
    }

    /// This authority as one that is believed.
    #[must_use]
    pub fn root(&self) -> Root {
        Root { name: self.name.clone(), certificate: with_ending(&self.base, ".cert.pem"), allow: None }
    }
}

impl NodeKeys {
    /// These keys with the certificate on the wire, believing one authority.
    #[must_use]
    pub fn with_certificate(&self, authority: &Authority) -> Trust {
        self.trust(Credential::Certificate(self.certificate.clone()), vec![authority.root()])
    }

    /// These keys with the key token on the wire, believing one authority.
    #[must_use]
    pub fn with_key_token(&self, authority: &Authority) -> Trust {
        self.trust(Credential::KeyToken(self.key_token.clone()), vec![authority.root()])
    }

    /// These keys with nothing on the wire, knowing the public keys of a directory.
    #[must_use]
    pub fn pre_populated(&self, peers_dir: &Path) -> Trust {
        Trust::Pki {
            key: self.key.clone(),
            credential: Credential::PrePopulated,
            roots: Vec::new(),
            peers_dir: Some(peers_dir.to_owned()),
        }
    }

    fn trust(&self, credential: Credential, roots: Vec<Root>) -> Trust {
        Trust::Pki { key: self.key.clone(), credential, roots, peers_dir: None }
    }
}

fn with_ending(base: &Path, ending: &str) -> PathBuf {
    let mut path = base.as_os_str().to_owned();
    path.push(ending);
    path.into()
}
