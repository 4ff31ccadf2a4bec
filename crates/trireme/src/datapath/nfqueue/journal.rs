//! The table of connections in a file of fixed places, written as it changes: it outlives the process, not the machine,
//! and that is as long as the connections themselves are released.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use trireme_flow::{ConnectionClass, ConnectionEntry, FlowKey, PuSlot};
use trireme_token::{Role, TokenId};

const FILE: &str = "connections";

/// Bytes of a place; the first byte is the version of its layout, 0 in a free one.
const PLACE: usize = 128;

const VERSION: u8 = 1;

/// Stands where there is no attested end.
const NOWHERE: (IpAddr, u16) = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Which place a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(u32);

/// A connection and its place.
pub(super) type Held = (Number, FlowKey, ConnectionEntry);

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    free: Vec<Number>,
    /// Behind the last place.
    end: u32,
}

impl Journal {
    /// Opens the file and gives the connections in it.
    pub(super) fn open(state_dir: &Path) -> io::Result<(Self, Vec<Held>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state_dir.join(FILE))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (mut free, mut held) = (Vec::new(), Vec::new());
        let mut end = 0;
        for place in bytes.as_chunks::<PLACE>().0 {
            match read(place) {
                Some((key, entry)) => held.push((Number(end), key, entry)),
                None => free.push(Number(end)),
            }
            end += 1;
        }
        Ok((Self { file, free, end }, held))
    }

    pub(super) fn put(&mut self, key: &FlowKey, entry: &ConnectionEntry) -> io::Result<Number> {
        let number = self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            Number(self.end - 1)
        });
        self.replace(number, key, entry)?;
        Ok(number)
    }

    pub(super) fn replace(&self, number: Number, key: &FlowKey, entry: &ConnectionEntry) -> io::Result<()> {
        self.file.write_all_at(&write(key, entry), number.offset())
    }

    pub(super) fn remove(&mut self, number: Number) -> io::Result<()> {
        self.free.push(number);
        self.file.write_all_at(&[0], number.offset())
    }
}

impl Number {
    fn offset(self) -> u64 {
        u64::from(self.0) * 128
    }
}

const _: () = assert!(PLACE == 128);

/// Writes fields one behind the other.
struct Pen {
    place: [u8; PLACE],
    at: usize,
}

impl Pen {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.at + bytes.len();
        if let Some(to) = self.place.get_mut(self.at..end) {
            to.copy_from_slice(bytes);
        }
        self.at = end;
        self
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    fn end(&mut self, (address, port): (IpAddr, u16)) -> &mut Self {
        let address = match address {
            IpAddr::V4(four) => four.to_ipv6_mapped(),
            IpAddr::V6(six) => six,
        };
        self.bytes(&address.octets()).bytes(&port.to_be_bytes())
    }
}

fn write(key: &FlowKey, entry: &ConnectionEntry) -> [u8; PLACE] {
    let role = match entry.role {
        Role::Initiator => 1,
        Role::Responder => 2,
    };
    let class = match entry.class {
        ConnectionClass::Identity => 1,
        ConnectionClass::Address => 2,
        ConnectionClass::Adopted => 3,
    };
    let mut pen = Pen { place: [0; PLACE], at: 0 };
    pen.bytes(&[VERSION, role, class, u8::from(entry.attested.is_some())])
        .number(key.pu.0)
        .end(key.local)
        .end(key.remote)
        .number(entry.epoch)
        .bytes(&entry.peer_token.0)
        .number(entry.peer_slot)
        .number(entry.peer_generation)
        .number(entry.proof_seq)
        .bytes(&entry.proof_mac)
        .number(entry.syn_ack)
        .end(entry.attested.unwrap_or(NOWHERE));
    debug_assert!(pen.at <= PLACE, "the fields fit");
    pen.place
}

/// Reads fields one behind the other.
struct Eye<'a>(&'a [u8]);

impl Eye<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn number(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn end(&mut self) -> Option<(IpAddr, u16)> {
        let address = Ipv6Addr::from(self.bytes::<16>()?);
        Some((IpAddr::V6(address).to_canonical(), u16::from_be_bytes(self.bytes()?)))
    }
}

/// None of a free place, and of one that no version of this program has written.
fn read(place: &[u8; PLACE]) -> Option<(FlowKey, ConnectionEntry)> {
    let mut eye = Eye(place);
    let [version, role, class, attested] = eye.bytes()?;
    if version != VERSION {
        return None;
    }
    let key = FlowKey::tcp(PuSlot(eye.number()?), eye.end()?, eye.end()?);
    let entry = ConnectionEntry {
        role: match role {
            1 => Role::Initiator,
            2 => Role::Responder,
            _ => return None,
        },
        class: match class {
            1 => ConnectionClass::Identity,
            2 => ConnectionClass::Address,
            3 => ConnectionClass::Adopted,
            _ => return None,
        },
        epoch: eye.number()?,
        peer_token: TokenId(eye.bytes()?),
        peer_slot: eye.number()?,
        peer_generation: eye.number()?,
        proof_seq: eye.number()?,
        proof_mac: eye.bytes()?,
        syn_ack: eye.number()?,
        attested: eye.end().filter(|_| attested == 1),
        // Whoever could have repeated the proof is gone.
        confirmed: true,
        data_seen: true,
    };
    Some((key, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey::tcp(PuSlot(7), ([10, 0, 0, 1].into(), port), ("fd00::2".parse().unwrap(), 80))
    }

    fn entry(epoch: u32) -> ConnectionEntry {
        ConnectionEntry {
            role: Role::Initiator,
            class: ConnectionClass::Identity,
            epoch,
            peer_token: TokenId([3; 16]),
            peer_slot: 4,
            peer_generation: 5,
            proof_seq: 6,
            proof_mac: [7; 16],
            syn_ack: 8,
            attested: Some(([10, 0, 0, 9].into(), 443)),
            confirmed: true,
            data_seen: true,
        }
    }

    #[test]
    fn connections_are_found_again_and_removed_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, none) = Journal::open(folder.path()).unwrap();
        assert!(none.is_empty());
        let [first, second, third] =
            [0, 1, 2].map(|port| journal.put(&key(port), &entry(u32::from(port))).unwrap());
        journal.remove(second).unwrap();
        journal.replace(third, &key(2), &entry(9)).unwrap();

        let (mut journal, held) = Journal::open(folder.path()).unwrap();
        assert_eq!(held, [(first, key(0), entry(0)), (third, key(2), entry(9))]);
        assert_eq!(journal.put(&key(5), &entry(1)).unwrap(), second, "a free place is used again");
    }

    #[test]
    fn what_is_damaged_is_a_free_place() {
        let mut place = write(&key(1), &entry(1));
        assert_eq!(read(&place), Some((key(1), entry(1))));
        place[1] = 9;
        assert_eq!(read(&place), None);
        assert_eq!(read(&[0; PLACE]), None);
        assert_eq!(read(&[0xff; PLACE]), None);
    }
}
