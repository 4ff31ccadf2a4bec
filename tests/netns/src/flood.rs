//! More handshakes than anybody finishes.

use trireme_testkit::lab::{LabError, Pu, RawSender};
use trireme_wire::build::{self, TcpSpec};
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

use crate::PORT;

/// The options of an ordinary SYN: a segment size, and that selective acknowledgements are understood.
const OPTIONS: [u8; 8] = [2, 4, 5, 180, 4, 2, 1, 1];

/// Sends SYNs of a workload to a server from ports that no socket of it has, one a port, over and over.
///
/// The workload's stack never answers what comes back, resets included, so that none of the handshakes is finished.
///
/// # Errors
/// [`LabError`] if the rules cannot be set or a packet cannot be sent.
///
/// # Panics
/// If a SYN cannot be built.
pub fn half_open(client: &Pu, server: &Pu, count: usize) -> Result<(), LabError> {
    const PORTS: std::ops::Range<u16> = 1024..32_000;
    // Raw packets pass the same hook: only what answers is held back.
    client.namespace.nft(
        "table inet half_open { chain out { type filter hook output priority 0; tcp flags & rst == rst drop; }; }\n",
    )?;
    let sender = RawSender::open(&client.namespace)?;
    let to = Endpoint::new(server.v4.into(), PORT);
    let numbers = (1..).map(|number: u32| number.wrapping_mul(0x9e37_79b9));
    for (port, seq) in PORTS.cycle().zip(numbers).take(count) {
        let from = Endpoint::new(client.v4.into(), port);
        let spec = TcpSpec { options: &OPTIONS, ..TcpSpec::new(from, to, seq, 0, Flags::SYN) };
        sender.send(&build::tcp(&spec).expect("a SYN can be built"))?;
    }
    client.namespace.nft("delete table inet half_open\n")
}
