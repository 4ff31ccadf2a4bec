//! What becomes of packets, many in one call of the kernel.

use std::collections::VecDeque;

use crate::codec::{VERDICT, Writer};

const VERDICT_HEADER: u16 = 2;
const MARK: u16 = 3;
const PAYLOAD: u16 = 10;

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is dropped.
    Drop,
    /// It goes on behind the rule that queued it.
    Accept,
    /// It goes through the rules of its hook once more, from their beginning; a mark keeps it from coming back.
    Repeat,
}

impl Action {
    const fn number(self) -> u32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Repeat => 4,
        }
    }
}

/// No new verdict is added to a datagram that is longer: the kernel takes less than 200 KiB at a time.
const DATAGRAM: usize = 64 * 1024;

/// Room that is kept between two calls: a thousand queues keep a thousand times as much.
const KEPT: usize = 32 * 1024;

/// Verdicts of one queue that the kernel has not been told yet.
#[derive(Debug)]
pub struct Verdicts {
    queue: u16,
    datagrams: VecDeque<Vec<u8>>,
    /// A datagram that was sent, to be written again.
    spare: Vec<u8>,
}

impl Verdicts {
    pub(crate) const fn new(queue: u16) -> Self {
        Self { queue, datagrams: VecDeque::new(), spare: Vec::new() }
    }

    pub(crate) const fn queue(&self) -> u16 {
        self.queue
    }

    /// Adds a verdict; `mark` takes the place of the packet's mark, `bytes` of the packet from its IP header on.
    ///
    /// Checksums in `bytes` are whole: whatever the packet's was worth, the kernel takes that of its replacement as it is.
    ///
    /// False if `bytes` are more than a message can carry (65,531): nothing was added then.
    #[must_use]
    pub fn decide(&mut self, id: u32, action: Action, mark: Option<u32>, bytes: Option<&[u8]>) -> bool {
        if self.datagrams.back().is_none_or(|last| last.len() > DATAGRAM) {
            self.datagrams.push_back(std::mem::take(&mut self.spare));
        }
        let Some(datagram) = self.datagrams.back_mut() else { return false };
        let mut writer = Writer::begin(datagram, VERDICT, 0, 0, self.queue);
        let mut header = [0; 8];
        let (verdict, name) = header.split_at_mut(4);
        verdict.copy_from_slice(&action.number().to_be_bytes());
        name.copy_from_slice(&id.to_be_bytes());
        let written = writer.attribute(VERDICT_HEADER, &header)
            && mark.is_none_or(|mark| writer.attribute(MARK, &mark.to_be_bytes()))
            && bytes.is_none_or(|bytes| writer.attribute(PAYLOAD, bytes));
        if written {
            writer.end();
        } else {
            writer.abandon();
        }
        written
    }

    /// What is to be sent next.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.datagrams.front().map(Vec::as_slice).filter(|datagram| !datagram.is_empty())
    }

    /// The kernel has it.
    pub(crate) fn forget_first(&mut self) {
        let Some(mut sent) = self.datagrams.pop_front() else { return };
        sent.clear();
        sent.shrink_to(KEPT);
        self.spare = sent;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::codec::{attributes, messages, netfilter};

    const QUEUE: u16 = 3;

    #[test]
    fn verdicts_are_laid_out_as_the_kernel_reads_them() {
        let mut verdicts = Verdicts::new(QUEUE);
        assert!(verdicts.decide(7, Action::Accept, Some(0x100), Some(b"new")));
        assert!(verdicts.decide(8, Action::Drop, None, None));

        let found: Vec<_> = messages(verdicts.first().unwrap())
            .map(|message| netfilter(message.body).unwrap())
            .map(|(queue, rest)| (queue, attributes(rest).collect::<Vec<_>>()))
            .collect();

        assert_eq!(
            found,
            [
                (3, vec![(2, &[0, 0, 0, 1, 0, 0, 0, 7][..]), (3, &[0, 0, 1, 0][..]), (10, &b"new"[..])]),
                (3, vec![(2, &[0, 0, 0, 0, 0, 0, 0, 8][..])]),
            ]
        );
    }

    #[test]
    fn long_verdicts_are_sent_in_several_calls() {
        let mut verdicts = Verdicts::new(QUEUE);
        for id in 0..10 {
            assert!(verdicts.decide(id, Action::Accept, None, Some(&vec![0; 40_000])));
        }
        let mut calls = Vec::new();
        while let Some(datagram) = verdicts.first() {
            calls.push(messages(datagram).count());
            assert!(datagram.len() < 160 * 1024);
            verdicts.forget_first();
        }
        assert_eq!(calls, [2; 5]);
        assert!(verdicts.spare.capacity() <= KEPT);
    }

    #[test]
    fn a_packet_that_no_message_carries_adds_nothing() {
        let mut verdicts = Verdicts::new(QUEUE);
        assert!(!verdicts.decide(1, Action::Accept, None, Some(&vec![0; 65_532])));
        assert_eq!(verdicts.first(), None);
        assert!(verdicts.decide(1, Action::Accept, None, Some(&vec![0; 65_531])));
        assert!(verdicts.first().is_some());
    }
}
