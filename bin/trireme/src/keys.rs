//! `trireme keys`: makes, shows and revokes keys. Private parts go to files of mode 0600 and nowhere else.

mod files;
mod show;

use std::path::Path;

use anyhow::Context;
use trireme::deny_file::{self, Appended, Entry};
use trireme_identity::NodeId;
use trireme_identity::time::WallTime;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::{Constraints, Psk, SeededRandom, SigningKey, TagPattern};
use zeroize::Zeroizing;

use crate::cli::{KeysVerb, RevokedKind};
use crate::exit::{Answer, Blame, Outcome};
use crate::output;

use files::{NewFile, write_all};

/// Runs the verb.
pub(crate) fn run(verb: &KeysVerb) -> Outcome {
    let text = match verb {
        KeysVerb::Ca { name, out, days } => ca(name, out, *days).usage()?,
        KeysVerb::Node { id, ca, out, allow, days } => node(id, ca, out, allow, *days).usage()?,
        KeysVerb::Psk { out } => psk(out).usage()?,
        KeysVerb::Show { files } => show::all(files).usage()?,
        KeysVerb::Revoke { kind, id, deny_list } => revoke(*kind, id, deny_list).usage()?,
    };
    output::print(&text).runtime()?;
    Ok(Answer::Yes)
}

fn ca(name: &str, out: &Path, days: u32) -> anyhow::Result<String> {
    let authority = Authority::create(name, &Constraints::Unrestricted, period(days), &mut random()?)
        .context("cannot make the authority")?;
    let files = [
        NewFile::beside(out, "key.pem", authority.key_pem()),
        NewFile::beside(out, "cert.pem", Zeroizing::new(authority.certificate_pem())),
    ];
    write_all(&files)?;
    let [key, certificate] = &files;
    Ok(format!(
        "authority {name}, {days} days\n{}  private key: keep it off the nodes\n{}  certificate: every node trusts it\n",
        key.path.display(),
        certificate.path.display()
    ))
}

fn node(id: &NodeId, ca: &Path, out: &Path, allow: &[TagPattern], days: u32) -> anyhow::Result<String> {
    let authority = files::authority(ca)?;
    let mut random = random()?;
    let key = SigningKey::generate(&mut random).context("cannot make a key")?;
    let constraints =
        if allow.is_empty() { Constraints::Unrestricted } else { Constraints::Allow(allow.to_vec()) };
    let request =
        NodeRequest { node: id.clone(), key: key.public().clone(), constraints, period: period(days) };
    let certificate = authority.certify(&request, &mut random).context("cannot make the certificate")?;
    let key_token = authority.key_token(&request).context("cannot make the key token")?;
    let files = [
        NewFile::beside(out, "key.pem", key.to_pem()),
        NewFile::beside(out, "cert.pem", Zeroizing::new(certificate.to_pem())),
        NewFile::beside(out, "token.pem", Zeroizing::new(key_token.to_pem())),
        NewFile::beside(out, "pub.pem", Zeroizing::new(key.public().to_pem())),
    ];
    write_all(&files)?;
    let [private, certificate, token, public] = &files;
    let may = if allow.is_empty() { "any tag".to_owned() } else { show::patterns(allow) };
    Ok(format!(
        "node {id}, {days} days, may claim {may}\n\
         {}  private key\n\
         {}  certificate: credential = {{ certificate = … }}\n\
         {}  key token: credential = {{ key_token = … }}, shorter on the wire\n\
         {}  public key: for the peers_dir of nodes that get no credential on the wire\n",
        private.path.display(),
        certificate.path.display(),
        token.path.display(),
        public.path.display()
    ))
}

fn psk(out: &Path) -> anyhow::Result<String> {
    let mut text = Psk::generate_text(&mut random()?);
    text.push('\n');
    let file = NewFile { path: out.to_owned(), text };
    write_all(std::slice::from_ref(&file))?;
    Ok(format!("{}  pre-shared key: whoever has it can claim any identity\n", out.display()))
}

fn revoke(kind: RevokedKind, id: &str, deny_list: &Path) -> anyhow::Result<String> {
    let kind = match kind {
        RevokedKind::Key => "key",
        RevokedKind::Token => "token",
        RevokedKind::Node => "node",
    };
    let entry: Entry = format!("{kind} {id}").parse()?;
    let place = deny_list.display();
    Ok(match deny_file::append(deny_list, &entry)? {
        Appended::Added => format!("{entry}  added to {place}: refused by every agent that reads it\n"),
        Appended::Present => format!("{entry}  is in {place} already\n"),
    })
}

fn period(days: u32) -> Period {
    Period { now: now(), lifetime_secs: u64::from(days) * 24 * 60 * 60 }
}

/// The wall clock.
pub(crate) fn now() -> WallTime {
    let secs = jiff::Timestamp::now().as_second();
    WallTime(u64::try_from(secs).unwrap_or(0))
}

fn random() -> anyhow::Result<SeededRandom> {
    let seed = trireme::random_seed().context("the kernel gives no random numbers")?;
    Ok(SeededRandom::new(*seed))
}
