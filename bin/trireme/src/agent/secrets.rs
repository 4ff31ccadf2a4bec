//! Reads the node's keys and checks that they fit each other, this node and today.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use trireme::{NodeSecrets, SecretsKind};
use trireme_identity::NodeId;
use trireme_identity::time::WallTime;
use trireme_token::credential::NodeCredential;
use trireme_token::{
    Constraints, Psk, PublicKeyAdder, Signer, SigningKey, TrustRoot, Verifier, VerifyError, VerifyingKey,
};
use zeroize::Zeroizing;

use super::read;
use crate::config::{Config, CredentialSource, Pki, Root, Secrets};
use crate::psk_env;

/// Loads what `[secrets]` names.
pub(super) fn load(config: &Config, from_env: Option<Zeroizing<String>>) -> anyhow::Result<NodeSecrets> {
    let (kind, signer, verifier) = match &config.secrets {
        Secrets::Psk(psk) => {
            let key = pre_shared_key(psk.file.as_deref(), from_env)?;
            let signer = Signer::psk(config.node.id.clone(), key.clone());
            (SecretsKind::Psk, signer, Verifier::psk(key))
        }
        Secrets::Pki(pki) => {
            if from_env.is_some() {
                bail!("{} is set, but [secrets.pki] is configured: unset it, or keep one", psk_env::VARIABLE);
            }
            public_keys(config, pki)?
        }
    };
    Ok(NodeSecrets {
        kind,
        signer: Arc::new(signer.with_payload_limit(config.token.size_budget.bytes())),
        verifier: Arc::new(verifier),
        encoding: config.token.encoding.into(),
        lifetime_secs: config.token.lifetime_secs.0,
    })
}

fn pre_shared_key(file: Option<&Path>, from_env: Option<Zeroizing<String>>) -> anyhow::Result<Psk> {
    match (file, from_env) {
        (Some(_), Some(_)) => {
            bail!("secrets.psk.file and {} both give a key: keep one", psk_env::VARIABLE)
        }
        (Some(file), None) => {
            private(file)?;
            let text = Zeroizing::new(read(file, "the pre-shared key")?);
            Psk::from_text(&text).with_context(|| format!("{} is not usable", file.display()))
        }
        (None, Some(text)) => {
            Psk::from_text(&text).with_context(|| format!("{} is not usable", psk_env::VARIABLE))
        }
        (None, None) => bail!(
            "there is no pre-shared key: set secrets.psk.file or {}, or configure [secrets.pki]",
            psk_env::VARIABLE
        ),
    }
}

fn public_keys(config: &Config, pki: &Pki) -> anyhow::Result<(SecretsKind, Signer, Verifier)> {
    let node = &config.node.id;
    private(&pki.key)?;
    let text = Zeroizing::new(read(&pki.key, "the node's key")?);
    let key = SigningKey::from_pem(&text).with_context(|| {
        format!("{} is not a node's key; make one with `trireme keys node`", pki.key.display())
    })?;
    let (kind, credential, place) = credential(&pki.credential)?;
    let verifier = Verifier::pki(pki.roots.iter().map(trust_root).collect::<anyhow::Result<_>>()?);
    in_force(&credential, place, node)?;
    let signer = Signer::pki(node.clone(), key, &credential)
        .with_context(|| format!("{} and {} do not fit", place.display(), pki.key.display()))?;
    if let Some(folder) = &pki.peers_dir {
        peers(folder, &verifier)?;
    }
    vouched_for(&signer, &verifier, config, place)?;
    Ok((kind, signer, verifier))
}

/// A credential that none of the own roots vouches for would be refused by nodes with the same configuration.
fn vouched_for(signer: &Signer, verifier: &Verifier, config: &Config, place: &Path) -> anyhow::Result<()> {
    let Secrets::Pki(pki) = &config.secrets else { return Ok(()) };
    if matches!(pki.credential, CredentialSource::PrePopulated) || pki.roots.is_empty() {
        return Ok(());
    }
    for unit in &config.pu {
        let request = trireme_token::TokenRequest {
            subject: unit.name.clone(),
            tags: unit.tags.clone(),
            partial: false,
            agreement: trireme_token::AgreementPublic([9; 32]),
            issued_at: today(),
            lifetime_secs: config.token.lifetime_secs.0,
        };
        // Size is checked against the configured budget when the unit itself is; here only trust counts.
        let Ok(token) =
            signer.clone().with_payload_limit(u16::MAX).issue(&request, config.token.encoding.into())
        else {
            continue;
        };
        match verifier.verify(&token.bytes, &token.credential, today()) {
            Ok(_) => {}
            Err(VerifyError::ConstraintViolated { tag, .. }) => bail!(
                "{} may not claim {tag}: its node's credential or a root's `allow` does not permit the tag",
                unit.name
            ),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("no root in secrets.pki.roots vouches for {}", place.display())
                });
            }
        }
    }
    Ok(())
}

fn credential(source: &CredentialSource) -> anyhow::Result<(SecretsKind, NodeCredential, &Path)> {
    let (kind, path) = match source {
        CredentialSource::PrePopulated => {
            return Ok((
                SecretsKind::PrePopulated,
                NodeCredential::Prepopulated,
                Path::new("the credential"),
            ));
        }
        CredentialSource::Certificate(path) => (SecretsKind::Certificate, path),
        CredentialSource::KeyToken(path) => (SecretsKind::KeyToken, path),
    };
    let text = read(path, "the node's credential")?;
    let credential =
        NodeCredential::from_pem(&text).with_context(|| format!("{} is not usable", path.display()))?;
    match (kind, &credential) {
        (SecretsKind::Certificate, NodeCredential::KeyToken(_)) => {
            bail!("{} holds a key token: write credential = {{ key_token = … }}", path.display())
        }
        (SecretsKind::KeyToken, NodeCredential::Certificate(_)) => {
            bail!("{} holds a certificate: write credential = {{ certificate = … }}", path.display())
        }
        (_, NodeCredential::Certificate(_) | NodeCredential::KeyToken(_) | NodeCredential::Prepopulated) => {
            Ok((kind, credential, path))
        }
    }
}

fn in_force(credential: &NodeCredential, path: &Path, node: &NodeId) -> anyhow::Result<()> {
    let Some(statement) = credential.statement()? else { return Ok(()) };
    let now = today();
    if statement.node != *node {
        bail!("{} is for node {}, but node.id is {node}", path.display(), statement.node);
    }
    if now > statement.not_after {
        bail!(
            "{} expired on {}: make a new one with `trireme keys node`",
            path.display(),
            crate::output::time(statement.not_after)
        );
    }
    if now < statement.not_before {
        let from = crate::output::time(statement.not_before);
        bail!("{} is not valid before {from}: is the clock right?", path.display());
    }
    Ok(())
}

fn trust_root(root: &Root) -> anyhow::Result<TrustRoot> {
    let text = read(&root.certificate, "the trust root")?;
    let constraints = root.allow.as_ref().map_or(Constraints::Unrestricted, |patterns| {
        Constraints::Allow(patterns.iter().map(|pattern| pattern.0.clone()).collect())
    });
    let place = root.certificate.display();
    let trusted = TrustRoot::from_pem(&root.name, &text, constraints)
        .with_context(|| format!("trust root {} ({place}) is not usable", root.name))?;
    if today() > trusted.not_after() {
        bail!("trust root {} ({place}) expired on {}", root.name, crate::output::time(trusted.not_after()));
    }
    Ok(trusted)
}

/// Adds `<node id>.pem` (a public key) for every peer.
fn peers(folder: &Path, verifier: &Verifier) -> anyhow::Result<()> {
    let context = || format!("cannot read secrets.pki.peers_dir {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(name) = name.strip_suffix(".pub.pem").or_else(|| name.strip_suffix(".pem")) else {
            continue;
        };
        let node: NodeId =
            name.parse().with_context(|| format!("{} is not named after a node", path.display()))?;
        let text = read(&path, "a peer's key")?;
        let key = VerifyingKey::from_pem(&text)
            .with_context(|| format!("{} is not a peer's public key", path.display()))?;
        verifier.add_public_key(node, key, Constraints::Unrestricted)?;
    }
    Ok(())
}

/// Refuses a secret that other users could read.
fn private(path: &Path) -> anyhow::Result<()> {
    let exposed = exposed(path).with_context(|| format!("cannot read {}", path.display()))?;
    exposed.map_or(Ok(()), |mode| {
        Err(anyhow!("{} can be read by other users (mode {mode:o}): chmod 600 it", path.display()))
    })
}

/// The mode of a file that other users could read.
pub(crate) fn exposed(path: &Path) -> std::io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

fn today() -> WallTime {
    crate::keys::now()
}
