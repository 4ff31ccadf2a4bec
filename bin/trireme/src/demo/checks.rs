//! What the demonstration checks beside the matrix.

mod explanation;
mod impostor;
mod replay;
mod translation;

use std::net::SocketAddr;

use trireme_testkit::lab::Namespace;

use super::report::Check;
use super::services::{self, Seen};
use super::tier::{Access, Tier};

pub(super) use explanation::explanation;
pub(super) use impostor::impostor;
pub(super) use replay::replay;
pub(super) use translation::translation;

/// A call with its expectation, described for people.
struct Attempt<'a> {
    what: String,
    from: &'a Namespace,
    to: SocketAddr,
    tier: Tier,
    server: &'a str,
    source: Option<String>,
    expected: Access,
}

/// Makes all attempts at once and returns those that went otherwise than expected.
fn failures(attempts: &[Attempt<'_>]) -> anyhow::Result<Vec<String>> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = attempts
            .iter()
            .map(|attempt| {
                scope.spawn(|| {
                    services::call(
                        attempt.from,
                        attempt.to,
                        attempt.tier,
                        attempt.server,
                        attempt.source.as_deref(),
                    )
                })
            })
            .collect();
        let mut failures = Vec::new();
        for (attempt, call) in attempts.iter().zip(calls) {
            let seen: Seen = call.join().map_err(|_| anyhow::anyhow!("a call panicked"))?;
            if !seen.is(attempt.expected) {
                failures.push(format!("{}: {}", attempt.what, seen.text()));
            }
        }
        Ok(failures)
    })
}

/// A check that passes when nothing failed.
fn check(name: &'static str, passed: String, failures: &[String]) -> Check {
    let ok = failures.is_empty();
    let detail = if ok { passed } else { failures.join("; ") };
    Check { name, ok, detail }
}
