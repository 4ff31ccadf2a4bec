//! A recorded handshake proves nothing a second time.

use std::time::Duration;

use trireme_testkit::lab::{Family, IpTap, Recording, Side, probe};

use super::super::report::Check;
use super::super::stage::Stage;
use super::super::tier::Tier;

const LIMIT: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Records a frontend's handshake with a backend on the router and plays it again from another port.
pub(in super::super) fn replay(stage: &Stage) -> anyhow::Result<Check> {
    let client = stage.replica(Side::A, Tier::Frontend)?;
    let server = stage.replica(Side::B, Tier::Backend)?;
    let mut wrong = Vec::new();
    let mut sizes = Vec::new();
    for (family, port) in Family::BOTH.into_iter().zip([40_001, 40_002]) {
        let to = server.at(family, Tier::Backend.port());
        let mut tap = IpTap::open(stage.lab.router())?;
        probe(&client.namespace, to, Duration::from_millis(100))?;
        let recording = Recording::take(&mut tap, to, LIMIT)?;
        let [syn, syn_ack, ack] = recording.kinds();
        if syn.is_none() || syn_ack.is_none() || ack.is_none() {
            wrong.push(format!("{family}: the handshake carried no identities"));
        }
        sizes.push(recording.syn.len());
        let outcome = recording.replay(&stage.lab, port, REQUEST, LIMIT)?;
        if !outcome.answer.is_empty() {
            let answer = String::from_utf8_lossy(&outcome.answer);
            wrong.push(format!("{family}: the backend answered a replayed handshake with {answer:?}"));
        }
    }
    let passed = format!(
        "a frontend's handshake (SYN of {} bytes), recorded on the router and replayed, got no answer",
        sizes.first().unwrap_or(&0)
    );
    Ok(super::check("replay", passed, &wrong))
}
