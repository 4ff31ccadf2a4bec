//! `trireme keys show`: what a key file says, private parts left out.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::bail;
use trireme_token::credential::{NodeCredential, Statement};
use trireme_token::{Constraints, Psk, SigningKey, TagPattern, TrustRoot, VerifyingKey};
use zeroize::Zeroizing;

use super::files;
use crate::output;

/// Describes every file.
pub(super) fn all(paths: &[PathBuf]) -> anyhow::Result<String> {
    let mut text = String::new();
    for path in paths {
        let content = Zeroizing::new(files::read(path)?);
        let Some(description) = describe(&content) else {
            bail!(
                "{} is none of: private key, public key, certificate, key token, pre-shared key",
                path.display()
            );
        };
        writeln!(text, "{}: {description}", path.display())?;
    }
    Ok(text)
}

fn describe(content: &str) -> Option<String> {
    if let Ok(key) = SigningKey::from_pem(content) {
        return Some(format!("private key\n  key id       {}", key.public().id()));
    }
    if let Ok(key) = VerifyingKey::from_pem(content) {
        return Some(format!("public key\n  key id       {}", key.id()));
    }
    if let Ok(credential) = NodeCredential::from_pem(content) {
        let kind = match credential {
            NodeCredential::Certificate(_) => "certificate of a node",
            NodeCredential::KeyToken(_) => "key token of a node",
            NodeCredential::Prepopulated => return None,
        };
        let bytes = credential.bytes().len();
        return credential.statement().ok().flatten().map(|statement| node(kind, bytes, &statement));
    }
    if let Ok(root) = TrustRoot::from_pem("shown", content, Constraints::Unrestricted) {
        return Some(format!(
            "certificate of an authority\n  key id       {}\n  valid until  {}",
            root.key_id(),
            output::time(root.not_after())
        ));
    }
    if content.contains("-----BEGIN") {
        return None;
    }
    Psk::from_text(content).ok().map(|_| "pre-shared key".to_owned())
}

fn node(kind: &str, bytes: usize, statement: &Statement) -> String {
    let may = match &statement.constraints {
        Constraints::Unrestricted => "any tag".to_owned(),
        Constraints::Allow(allowed) => patterns(allowed),
    };
    format!(
        "{kind}, {bytes} bytes on the wire\n  node         {}\n  key id       {}\n  valid from   {}\n  valid until  {}\n  may claim    {may}",
        statement.node,
        statement.key.id(),
        output::time(statement.not_before),
        output::time(statement.not_after),
    )
}

/// Tag patterns on one line.
pub(super) fn patterns(patterns: &[TagPattern]) -> String {
    if patterns.is_empty() {
        return "no tag".to_owned();
    }
    patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
