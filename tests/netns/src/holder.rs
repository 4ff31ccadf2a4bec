//! Another program that has a queue.

use std::process::Command;

use trireme_testkit::lab::{Lab, Namespace, Process, eventually};

use crate::PATIENT;

/// Binds a queue and holds it.
const HOLDER: &str = "
import socket, struct, sys, time
queue = int(sys.argv[1])
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.bind((0, 0))
command = struct.pack('=HH', 8, 1) + struct.pack('>BBH', 1, 0, 0)
body = struct.pack('>BBH', 0, 0, queue) + command
netlink.send(struct.pack('=IHHII', 16 + len(body), 3 << 8 | 2, 1 | 4, 1, 0) + body)
answer = netlink.recv(4096)
print('holds' if struct.unpack('=i', answer[16:20])[0] == 0 else answer, flush=True)
time.sleep(600)
";

/// Starts it in a namespace, and waits until it has that queue.
///
/// # Panics
/// If it does not get it.
#[must_use]
pub fn hold_queue(lab: &Lab, namespace: &Namespace, queue: u16) -> Process {
    let mut command = Command::new("python3");
    command.args(["-c", HOLDER, &queue.to_string()]);
    let log = lab.dir().join("holder.log");
    let holder = Process::start(namespace, "holder", &mut command, &log).expect("python3 can be started");
    eventually("another program's queue", PATIENT, || Ok(holder.log().contains("holds")), || holder.log())
        .unwrap_or_else(|error| panic!("{error}"));
    holder
}
