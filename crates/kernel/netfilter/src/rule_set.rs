//! What the rules of one namespace are to do, and how it is written into a comment.

use std::fmt;
use std::str::FromStr;

use crate::{FieldError, MarkField, NetfilterError};

/// What starts the comment of every set of rules of ours, whatever its version.
pub(crate) const SIGNATURE: &str = "trireme ";

/// What starts the comment of this version's rules; raised when what the rules do changes.
const VERSION: &str = "trireme 1 ";

/// What becomes of a packet while no agent listens to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unanswered {
    /// It is dropped.
    Drop,
    /// It passes unjudged: the queue's bypass.
    Accept,
}

/// What becomes of packets that are neither TCP nor errors about it, neighbour discovery and multicast listeners apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OtherProtocols {
    /// They are queued, like connections.
    Judge,
    /// They are dropped and counted.
    Deny,
    /// They pass.
    Allow,
}

/// What the rules of one namespace do.
///
/// Its text is one line of `name=value`, which [`FromStr`] reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleSet {
    /// Number of the netfilter queue.
    pub queue: u16,
    /// Bits of marks and connmarks that are Trireme's.
    pub field: MarkField,
    /// Value of the field which says that a connection is released now: 1 to [`MarkField::max`].
    pub released: u32,
    /// While no agent listens.
    pub unanswered: Unanswered,
    /// What is neither TCP nor an error about it.
    pub other_protocols: OtherProtocols,
    /// First bytes of a TCP payload that is queued on its way in even if the connection is released.
    pub tap_magic: [u8; 4],
}

impl RuleSet {
    /// The value of `released` in its place in the mark.
    pub fn released_mark(&self) -> u32 {
        self.field.place(self.released)
    }

    /// The magic as the kernel compares it.
    pub(crate) fn magic(&self) -> u32 {
        u32::from_be_bytes(self.tap_magic)
    }

    /// Refuses what would release nothing, or everything.
    pub(crate) fn check(&self) -> Result<(), NetfilterError> {
        let max = self.field.max();
        if (1..=max).contains(&self.released) {
            return Ok(());
        }
        Err(NetfilterError::Released { released: self.released, field: self.field, max })
    }

    /// The comment by which the rules are known as ours.
    pub(crate) fn comment(&self) -> String {
        format!("{VERSION}{self}")
    }

    /// Reads a comment of ours.
    pub(crate) fn from_comment(comment: &str) -> Result<Self, NetfilterError> {
        let unknown = || NetfilterError::Version { comment: comment.to_owned() };
        comment.strip_prefix(VERSION).ok_or_else(unknown)?.parse().map_err(|_| unknown())
    }
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, field, released, unanswered, other_protocols, .. } = self;
        let unanswered = match unanswered {
            Unanswered::Drop => "drop",
            Unanswered::Accept => "accept",
        };
        let other = match other_protocols {
            OtherProtocols::Judge => "judge",
            OtherProtocols::Deny => "deny",
            OtherProtocols::Allow => "allow",
        };
        let magic = self.magic();
        write!(
            f,
            "queue={queue} field={field} released={released} unanswered={unanswered} other={other} tap={magic:08x}"
        )
    }
}

impl FromStr for RuleSet {
    type Err = RuleSetError;

    /// Reads what [`Display`](fmt::Display) writes; names that are not known are skipped.
    fn from_str(text: &str) -> Result<Self, RuleSetError> {
        let value = |name: &'static str| {
            let mut words = text.split_whitespace().filter_map(|word| word.split_once('='));
            words.find(|(found, _)| *found == name).map(|(_, value)| value).ok_or(RuleSetError(name))
        };
        let tap = value("tap")?;
        Ok(Self {
            queue: value("queue")?.parse().map_err(|_| RuleSetError("queue"))?,
            field: value("field")?.parse().map_err(|_: FieldError| RuleSetError("field"))?,
            released: value("released")?.parse().map_err(|_| RuleSetError("released"))?,
            unanswered: match value("unanswered")? {
                "drop" => Unanswered::Drop,
                "accept" => Unanswered::Accept,
                _ => return Err(RuleSetError("unanswered")),
            },
            other_protocols: match value("other")? {
                "judge" => OtherProtocols::Judge,
                "deny" => OtherProtocols::Deny,
                "allow" => OtherProtocols::Allow,
                _ => return Err(RuleSetError("other")),
            },
            tap_magic: u32::from_str_radix(tap, 16).map_err(|_| RuleSetError("tap"))?.to_be_bytes(),
        })
    }
}

/// Which part of a rule set's text is missing or cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text of a rule set lacks a readable {0}=")]
pub struct RuleSetError(pub &'static str);

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    /// The set with the longest comment.
    pub(crate) fn longest() -> RuleSet {
        RuleSet {
            queue: u16::MAX,
            field: MarkField::new(u32::MAX).unwrap(),
            released: u32::MAX - 1,
            unanswered: Unanswered::Accept,
            other_protocols: OtherProtocols::Allow,
            tap_magic: *b"TAP\x01",
        }
    }

    #[test]
    fn comment_is_read_back_and_fits_into_what_nft_stores() {
        let comment = longest().comment();

        assert_eq!(RuleSet::from_comment(&comment).unwrap(), longest());
        assert!(comment.len() < 128, "{comment}");
    }

    #[test]
    fn comment_of_another_version_is_refused() {
        let error = RuleSet::from_comment("trireme 2 queue=7").unwrap_err();

        assert!(matches!(error, NetfilterError::Version { .. }), "{error}");
    }

    #[test]
    fn text_without_a_part_names_it() {
        let text = longest().to_string();

        assert_eq!(text.replace("other=allow", "").parse::<RuleSet>(), Err(RuleSetError("other")));
        assert_eq!(text.replace("queue=65535", "queue=65536").parse::<RuleSet>(), Err(RuleSetError("queue")));
    }

    #[test]
    fn released_value_that_says_nothing_or_reset_is_refused() {
        let field = MarkField::new(0xff00_0000).unwrap();
        for (released, good) in [(0, false), (1, true), (254, true), (255, false), (256, false)] {
            assert_eq!(RuleSet { field, released, ..longest() }.check().is_ok(), good, "{released}");
        }
    }
}
