//! Bulk data through an echo server, compared by hash.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Namespace, Pu, connect, uninterrupted};

use crate::PATIENT;

/// Loss may cost many retransmissions.
const LIMIT: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 * 1024;

/// One direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// How many bytes.
    pub len: usize,
    /// Their hash.
    pub hash: u64,
}

/// A transfer through an echo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echoed {
    /// What was sent.
    pub sent: Stream,
    /// What came back.
    pub received: Stream,
    /// How long it took.
    pub elapsed: Duration,
}

/// Sends megabytes to an echo server and reads them back at the same time.
///
/// # Panics
/// If the connection breaks or stalls.
#[must_use]
pub fn echo_megabytes(client: &Pu, to: SocketAddr, megabytes: usize) -> Echoed {
    echo_megabytes_from(&client.namespace, to, megabytes)
}

/// As [`echo_megabytes`], from any namespace.
///
/// # Panics
/// As there.
#[must_use]
pub fn echo_megabytes_from(client: &Namespace, to: SocketAddr, megabytes: usize) -> Echoed {
    let start = Instant::now();
    let mut reader = connect(client, to, PATIENT).expect("the server can be reached");
    let mut writer = reader.try_clone().expect("a socket can be shared");
    reader.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
    writer.set_write_timeout(Some(LIMIT)).expect("a timeout can be set");
    let (sent, received) = thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let (mut hasher, mut len) = (DefaultHasher::new(), 0);
            for _ in 0..megabytes * (1 << 20) / CHUNK {
                let chunk = noise(&mut state);
                writer.write_all(&chunk).expect("the connection takes data");
                hasher.write(&chunk);
                len += chunk.len();
            }
            writer.shutdown(Shutdown::Write).expect("the connection can be half closed");
            Stream { len, hash: hasher.finish() }
        });
        let (mut hasher, mut len) = (DefaultHasher::new(), 0);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = uninterrupted(|| reader.read(&mut buffer)).expect("the connection gives data");
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
            hasher.write(chunk);
            len += read;
        }
        (sending.join().expect("the sender ends"), Stream { len, hash: hasher.finish() })
    });
    // Writes of different sizes feed this hasher alike.
    Echoed { sent, received, elapsed: start.elapsed() }
}

/// A chunk of a xorshift sequence.
fn noise(state: &mut u64) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(CHUNK);
    while chunk.len() < CHUNK {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        chunk.extend_from_slice(&state.to_le_bytes());
    }
    chunk
}
