//! The node's keys: whether they can be read, by whom, and until when they hold.

use std::path::Path;

use trireme_identity::time::WallTime;
use trireme_token::credential::NodeCredential;
use trireme_token::{Constraints, Psk, SigningKey, TrustRoot};
use zeroize::Zeroizing;

use super::finding::Finding;
use crate::agent::exposed;
use crate::config::{Config, CredentialSource, Pki, Secrets};
use crate::output;

const CHECK: &str = "keys";
const DAY: u64 = 24 * 60 * 60;
/// Days before the end in which to make new ones.
const SOON: u64 = 7;

/// Looks at what `[secrets]` names. Whether all of it fits together is for `trireme agent --check`.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    match &config.secrets {
        Secrets::Psk(psk) => vec![match &psk.file {
            Some(file) => pre_shared(file),
            None => Finding::note(
                CHECK,
                format!("the pre-shared key comes from {} and is not looked at", crate::psk_env::VARIABLE),
                "set secrets.psk.file, or configure [secrets.pki]",
            ),
        }],
        Secrets::Pki(pki) => public(config, pki),
    }
}

fn pre_shared(file: &Path) -> Finding {
    let read = private(file).and_then(|text| Psk::from_text(&text).map_err(|error| error.to_string()));
    match read {
        Ok(_) => Finding::ok(CHECK, format!("{} is a pre-shared key", file.display())),
        Err(error) => unusable(file, &error, "trireme keys psk --out FILE, with mode 600"),
    }
}

fn public(config: &Config, pki: &Pki) -> Vec<Finding> {
    const AGAIN: &str = "make new ones with `trireme keys node`";
    let key =
        private(&pki.key).and_then(|text| SigningKey::from_pem(&text).map_err(|error| error.to_string()));
    let mut findings = vec![match key {
        Ok(_) => Finding::ok(CHECK, format!("{} is a private key", pki.key.display())),
        Err(error) => unusable(&pki.key, &error, AGAIN),
    }];
    let today = crate::keys::now();
    match &pki.credential {
        CredentialSource::PrePopulated => {}
        CredentialSource::Certificate(path) | CredentialSource::KeyToken(path) => {
            findings.push(match credential(path) {
                Ok((node, ..)) if node != config.node.id.to_string() => Finding::problem(
                    CHECK,
                    format!("{} is for node {node}, but node.id is {}", path.display(), config.node.id),
                    "correct node.id, or name the credential of this node",
                ),
                Ok((_, from, until)) => period(&path.display().to_string(), from, until, today, AGAIN),
                Err(error) => unusable(path, &error, AGAIN),
            });
        }
    }
    for root in &pki.roots {
        let path = &root.certificate;
        let read = text_of(path).and_then(|text| {
            TrustRoot::from_pem(&root.name, &text, Constraints::Unrestricted)
                .map_err(|error| error.to_string())
        });
        findings.push(match read {
            Ok(trusted) => {
                let name = format!("trust root {}", root.name);
                let remedy = "make a new authority with `trireme keys ca`, and new keys for every node";
                period(&name, WallTime(0), trusted.not_after(), today, remedy)
            }
            Err(error) => unusable(path, &error, "name the certificate that `trireme keys ca` made"),
        });
    }
    findings
}

/// Node, and from when until when it holds.
fn credential(path: &Path) -> Result<(String, WallTime, WallTime), String> {
    let read = NodeCredential::from_pem(&text_of(path)?).and_then(|credential| credential.statement());
    let statement = read.map_err(|error| error.to_string())?.ok_or_else(|| "it names no node".to_owned())?;
    Ok((statement.node.to_string(), statement.not_before, statement.not_after))
}

fn period(name: &str, from: WallTime, until: WallTime, today: WallTime, again: &str) -> Finding {
    let end = output::time(until);
    if today > until {
        return Finding::problem(CHECK, format!("{name} expired on {end}"), again);
    }
    if today < from {
        let found = format!("{name} is not valid before {}", output::time(from));
        return Finding::problem(CHECK, found, "set the clock right");
    }
    let days = until.0.saturating_sub(today.0) / DAY;
    let found = format!("{name} is valid until {end}");
    if days < SOON {
        Finding::note(CHECK, format!("{found}: {days} days"), again)
    } else {
        Finding::ok(CHECK, found)
    }
}

fn unusable(path: &Path, error: &str, remedy: &str) -> Finding {
    Finding::problem(CHECK, format!("{} is not usable: {error}", path.display()), remedy)
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, String> {
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| error.to_string())
}

/// A secret that nobody else can read.
fn private(path: &Path) -> Result<Zeroizing<String>, String> {
    match exposed(path).map_err(|error| error.to_string())? {
        None => text_of(path),
        Some(mode) => Err(format!("it can be read by other users (mode {mode:o}), chmod 600 it")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::finding::Level;
    use super::*;

    const TODAY: WallTime = WallTime(1_790_000_000);

    #[test]
    fn a_credential_is_noted_in_its_last_week_and_a_problem_behind_it() {
        let with = |left: u64| period("a.cert.pem", WallTime(0), TODAY.plus_secs(left), TODAY, "again");
        assert_eq!(with(7 * DAY).level, Level::Ok);
        let soon = with(7 * DAY - 1);
        assert_eq!((soon.level, soon.found.ends_with(": 6 days")), (Level::Note, true));
        assert_eq!(with(0).level, Level::Note);
        let over = period("a.cert.pem", WallTime(0), TODAY.minus_secs(1), TODAY, "again");
        assert_eq!(over, Finding::problem("keys", "a.cert.pem expired on 2026-09-21T14:13:19Z", "again"));
        let early = period("a.cert.pem", TODAY.plus_secs(1), TODAY.plus_secs(2), TODAY, "again");
        assert_eq!(early.remedy.unwrap(), "set the clock right");
    }

    #[test]
    fn a_key_that_others_can_read_is_not_usable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("psk");
        std::fs::write(&path, "5b1a0c0fffe0b4f0d3c2b1a09f8e7d6c").unwrap();
        for (mode, level) in [(0o644, Level::Problem), (0o600, Level::Ok)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(pre_shared(&path).level, level);
        }
        std::fs::write(&path, "short").unwrap();
        assert!(pre_shared(&path).found.contains("is not usable: "), "{:?}", pre_shared(&path));
        assert_eq!(pre_shared(&folder.path().join("none")).level, Level::Problem);
    }
}
