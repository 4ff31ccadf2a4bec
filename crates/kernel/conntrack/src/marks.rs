//! Marks of tracked connections, listed and cleared in part (linux/netfilter/nfnetlink_conntrack.h).
//!
//! An entry is named by its own attributes, which are handed back as they came: whatever its protocol and zone are.

use std::io;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use crate::{Conntrack, ConntrackError, message};

const MARK_MASK: u16 = 21;

/// What distinguishes entries that have the same addresses and ports.
const ZONE: u16 = 18;

/// Which marks are meant: those that have `value` in the bits of `mask`, or with none any bit of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The bits that are looked at.
    pub mask: u32,
    /// What they must be.
    pub value: Option<u32>,
}

impl Marks {
    const fn has(self, mark: u32) -> bool {
        match self.value {
            Some(value) => mark & self.mask == value,
            None => mark & self.mask != 0,
        }
    }
}

/// An entry to change, by what names it.
type Named = (NetfilterProtoFamily, Vec<ConntrackAttribute>);

impl Conntrack {
    /// Clears bits of the marks of all entries of the namespace whose marks are meant; gives the number of entries.
    /// Everything else about them stays: translations, states and the other bits.
    ///
    /// # Errors
    /// [`ConntrackError::Marks`] without the privilege to, or without connection tracking or its marks in the kernel.
    pub fn clear_marks(&mut self, marks: Marks, clear: u32) -> Result<usize, ConntrackError> {
        let found = self.marked(marks).map_err(ConntrackError::Marks)?;
        let mut cleared = 0;
        for (family, attributes) in found {
            match self.clear(family, attributes, clear).map_err(ConntrackError::Marks)? {
                Ok(()) => cleared += 1,
                // It has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ConntrackError::Marks(error)),
            }
        }
        Ok(cleared)
    }

    fn clear(
        &mut self,
        family: NetfilterProtoFamily,
        mut attributes: Vec<ConntrackAttribute>,
        clear: u32,
    ) -> io::Result<io::Result<()>> {
        // The kernel takes the bits of the mask from the new mark, and leaves the others.
        attributes.push(ConntrackAttribute::CtaMark(0));
        attributes.push(ConntrackAttribute::Other(DefaultNla::new(MARK_MASK, clear.to_be_bytes().to_vec())));
        self.sequence = self.sequence.wrapping_add(1);
        let request =
            message(family, (NLM_F_REQUEST | NLM_F_ACK, self.sequence), ConntrackMessage::New(attributes));
        self.socket.send(&request, 0)?;
        self.acknowledgement()
    }

    /// Entries whose marks are meant.
    fn marked(&mut self, marks: Marks) -> io::Result<Vec<Named>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message(
            NetfilterProtoFamily::Unspec,
            (NLM_F_REQUEST | NLM_F_DUMP, self.sequence),
            ConntrackMessage::Get(Vec::new()),
        );
        self.socket.send(&request, 0)?;
        let mut found = Vec::new();
        while self.read_entries(marks, &mut found)? {}
        Ok(found)
    }

    /// Reads one datagram of an answer, which holds several messages; false behind the last.
    fn read_entries(&self, marks: Marks, found: &mut Vec<Named>) -> io::Result<bool> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
            // Messages stand at multiples of four bytes.
            let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
            rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Done(_) = message.payload {
                return Ok(false);
            } else if let NetlinkPayload::Error(error) = message.payload {
                return Err(error.to_io());
            } else if let NetlinkPayload::InnerMessage(NetfilterMessage {
                header,
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                ..
            }) = message.payload
            {
                found.extend(named(header.family, attributes, marks));
            }
        }
        Ok(true)
    }
}

/// What names an entry, if its mark is meant.
fn named(family: NetfilterProtoFamily, attributes: Vec<ConntrackAttribute>, marks: Marks) -> Option<Named> {
    let mark = attributes.iter().find_map(mark_of).unwrap_or(0);
    if !marks.has(mark) {
        return None;
    }
    Some((family, attributes.into_iter().filter(is_name).collect()))
}

fn mark_of(attribute: &ConntrackAttribute) -> Option<u32> {
    if let ConntrackAttribute::CtaMark(mark) = attribute { Some(*mark) } else { None }
}

fn is_name(attribute: &ConntrackAttribute) -> bool {
    if let ConntrackAttribute::Other(other) = attribute {
        return other.kind() == ZONE;
    }
    matches!(attribute, ConntrackAttribute::CtaTupleOrig(_))
}
