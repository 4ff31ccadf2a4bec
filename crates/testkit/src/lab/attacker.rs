//! Someone on the path between the nodes who records handshakes and plays them again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trireme_wire::build::{self, TcpSpec};
use trireme_wire::tap::{self, Kind};
use trireme_wire::tcp::options::Timestamps;
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::tuple::Endpoint;
use trireme_wire::{checksum, edit};

use super::{IpTap, Lab, LabError, RawSender};

/// A handshake as it passed the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The client's SYN.
    pub syn: Vec<u8>,
    /// The server's answer.
    pub syn_ack: Vec<u8>,
    /// The client's first segment after it.
    pub ack: Vec<u8>,
}

/// What came of playing it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// How many SYN-ACKs the server sent.
    pub syn_acks: usize,
    /// What the server wrote to the attacker.
    pub answer: Vec<u8>,
}

impl Recording {
    /// Listens until a whole handshake with this server has passed.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] if none does.
    pub fn take(tap: &mut IpTap, server: SocketAddr, limit: Duration) -> Result<Self, LabError> {
        let deadline = Instant::now() + limit;
        let mut next = |what: &str, wanted: &dyn Fn(&Segment) -> bool| {
            let left = deadline.saturating_duration_since(Instant::now());
            let found =
                tap.find(left, |bytes| Segment::parse(bytes).is_ok_and(|segment| wanted(&segment)))?;
            let mut packet = found.ok_or_else(|| LabError::TimedOut {
                what: format!("{what} passing the router"),
                limit,
                detail: String::new(),
            })?;
            // On its way between virtual interfaces a checksum may still be partial.
            checksum::complete(&mut packet).map_err(|error| LabError::Output {
                what: "a recorded packet".into(),
                output: error.to_string(),
            })?;
            Ok::<_, LabError>(packet)
        };
        let syn = next("a SYN", &|segment| segment.flags.is_syn() && is_to(segment, server))?;
        let syn_ack = next("a SYN-ACK", &|segment| segment.flags.is_syn_ack() && is_from(segment, server))?;
        let ack = next("an ACK", &|segment| !segment.flags.is_syn() && is_to(segment, server))?;
        Ok(Self { syn, syn_ack, ack })
    }

    /// The kinds of TAP messages in the three segments.
    #[must_use]
    pub fn kinds(&self) -> [Option<Kind>; 3] {
        [&self.syn, &self.syn_ack, &self.ack].map(|packet| {
            let segment = Segment::parse(packet).ok()?;
            tap::Header::parse(segment.payload(packet)).ok().map(|header| header.kind())
        })
    }

    /// How long the token is that the SYN carries; zero if it only names one.
    #[must_use]
    pub fn token_len(&self) -> usize {
        let Ok(segment) = Segment::parse(&self.syn) else { return 0 };
        let payload = segment.payload(&self.syn);
        tap::Header::parse(payload).map_or(0, |header| header.token(payload).len())
    }

    /// Plays the handshake again from the router, from another port, and asks for something.
    ///
    /// The old token and the old proof are used at the right sequence numbers; the true client
    /// never sees the answers. Returns when the server has answered, or after `limit`.
    ///
    /// # Errors
    /// [`LabError`] if a packet cannot be sent or read.
    pub fn replay(&self, lab: &Lab, port: u16, request: &[u8], limit: Duration) -> Result<Replay, LabError> {
        let mut syn = self.syn.clone();
        let old = Segment::parse(&syn).map_err(malformed)?;
        let client = Endpoint::new(old.ip.src, port);
        let server = Endpoint::new(old.ip.dst, old.dst_port);
        edit::set_source(&mut syn, client).map_err(malformed)?;
        let _silence = Silence::start(lab, port)?;
        let mut tap = IpTap::open(lab.router())?;
        let sender = RawSender::open(lab.router())?;
        sender.send(&syn)?;
        let mut replay = Replay::default();
        let deadline = Instant::now() + limit;
        while let Some(packet) = tap.next(deadline.saturating_duration_since(Instant::now()))? {
            let Ok(segment) = Segment::parse(&packet) else { continue };
            if segment.tuple().dst != client {
                continue;
            }
            if segment.flags.is_syn_ack() {
                replay.syn_acks += 1;
                let tail = self.continuation(
                    client,
                    server,
                    &segment,
                    segment.options(&packet).timestamps(),
                    request,
                )?;
                for packet in tail {
                    sender.send(&packet)?;
                }
            } else if !tap::is_tap(segment.payload(&packet)) && segment.payload_len() > 0 {
                replay.answer.extend_from_slice(segment.payload(&packet));
                break;
            }
        }
        Ok(replay)
    }

    /// The old proof and a request, fitted to a new SYN-ACK.
    fn continuation(
        &self,
        client: Endpoint,
        server: Endpoint,
        syn_ack: &Segment,
        timestamps: Option<Timestamps>,
        request: &[u8],
    ) -> Result<[Vec<u8>; 2], LabError> {
        let old = Segment::parse(&self.ack).map_err(malformed)?;
        let value = old.options(&self.ack).timestamps().map_or(0, |old| old.value);
        let options = timestamps.map(|theirs| Timestamps { value, echo: theirs.value }.encode());
        let options = options.as_ref().map_or(&[][..], |options| &options[..]);
        let (seq, ack) = (syn_ack.ack, syn_ack.seq.wrapping_add(1));
        let base = TcpSpec { window: 502, options, ..TcpSpec::new(client, server, seq, ack, Flags::ACK) };
        let proof = build::tcp(&TcpSpec { payload: old.payload(&self.ack), ..base }).map_err(malformed)?;
        let flags = Flags::ACK.union(Flags::PSH);
        let data = build::tcp(&TcpSpec { payload: request, flags, ..base }).map_err(malformed)?;
        Ok([proof, data])
    }
}

/// Keeps the true client from hearing of connections made in its name.
struct Silence<'a>(&'a Lab);

impl<'a> Silence<'a> {
    fn start(lab: &'a Lab, port: u16) -> Result<Self, LabError> {
        lab.router().nft(&format!(
            "table inet lab_silence {{ chain forward {{ type filter hook forward priority 0; tcp dport {port} drop; }}; }}\n"
        ))?;
        Ok(Self(lab))
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        drop(self.0.router().nft("delete table inet lab_silence\n"));
    }
}

fn is_to(segment: &Segment, server: SocketAddr) -> bool {
    (segment.ip.dst, segment.dst_port) == (server.ip(), server.port())
}

fn is_from(segment: &Segment, server: SocketAddr) -> bool {
    (segment.ip.src, segment.src_port) == (server.ip(), server.port())
}

fn malformed(error: impl std::error::Error) -> LabError {
    LabError::Output { what: "a recorded packet".into(), output: error.to_string() }
}
