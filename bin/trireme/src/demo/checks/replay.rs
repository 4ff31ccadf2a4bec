//! A recorded handshake proves nothing a second time.

use std::time::Duration;

use trireme_testkit::lab::{Family, IpTap, Recording, Side, probe};

use super::super::report::Check;
use super::super::stage::Stage;
use super::super::tier::Tier;

const LIMIT: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Records two of a frontend's handshakes with a backend on the router and plays them again from other ports.
///
/// The nodes meet for the first time again: the first SYN carries the whole token. The second one only names it and is
/// protected by a MAC.
pub(in super::super) fn replay(stage: &mut Stage) -> anyhow::Result<Check> {
    stage.begin_anew()?;
    let client = stage.replica(Side::A, Tier::Frontend)?;
    let server = stage.replica(Side::B, Tier::Backend)?;
    let mut wrong = Vec::new();
    let mut token_lens = Vec::new();
    for (family, port) in Family::BOTH.into_iter().zip([40_001, 40_002]) {
        let to = server.at(family, Tier::Backend.port());
        let mut tap = IpTap::open(stage.lab.router())?;
        probe(&client.namespace, to, Duration::from_millis(100))?;
        let recording = Recording::take(&mut tap, to, LIMIT)?;
        if recording.kinds().contains(&None) {
            wrong.push(format!("{family}: the handshake carried no identities"));
        }
        token_lens.push(recording.token_len());
        let outcome = recording.replay(&stage.lab, port, REQUEST, LIMIT)?;
        if !outcome.answer.is_empty() {
            let answer = String::from_utf8_lossy(&outcome.answer);
            wrong.push(format!("{family}: the backend answered a replayed handshake with {answer:?}"));
        }
    }
    let token_len = token_lens.first().copied().unwrap_or(0);
    if token_len == 0 {
        wrong.push("no token passed the router".to_owned());
    }
    let passed = format!(
        "SYN with a frontend's token of {token_len} bytes, and proof: recorded on the router, replayed, no answer"
    );
    Ok(super::check("replay", passed, &wrong))
}
