//! TCP options: a bounded iterator and the kinds that the enforcer cares about.

use std::ops::Range;

use crate::bytes::{be16, be32};

/// End of the option list.
pub const END: u8 = 0;
/// Padding.
pub const NO_OPERATION: u8 = 1;
/// Maximum segment size.
pub const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Timestamps (RFC 7323).
pub const TIMESTAMPS: u8 = 8;
/// TCP-MD5 signature (RFC 2385).
pub const MD5_SIGNATURE: u8 = 19;
/// TCP authentication option (RFC 5925).
pub const AUTHENTICATION: u8 = 29;
/// Multipath TCP (RFC 8684).
pub const MULTIPATH: u8 = 30;
/// TCP Fast Open cookie (RFC 7413).
pub const FAST_OPEN: u8 = 34;
/// First kind for experiments (RFC 6994: an experiment id follows).
pub const EXPERIMENT_1: u8 = 253;
/// Second kind for experiments.
pub const EXPERIMENT_2: u8 = 254;
/// Experiment id of TCP Fast Open cookies, from before they had a kind of their own.
pub const FAST_OPEN_EXPERIMENT: u16 = 0xf989;

/// The most option bytes that a header can hold.
pub const MAX_LEN: usize = 40;

/// One option of a TCP header, other than padding and the end mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOption<'a> {
    /// The option's kind.
    pub kind: u8,
    /// What follows kind and length.
    pub data: &'a [u8],
    /// Where the option lies among the option bytes, kind and length included.
    pub range: Range<usize>,
}

impl TcpOption<'_> {
    /// Returns whether this is a Fast Open cookie or a request for one, in either form.
    #[must_use]
    pub fn is_fast_open(&self) -> bool {
        match self.kind {
            FAST_OPEN => true,
            EXPERIMENT_1 | EXPERIMENT_2 => be16(self.data, 0) == Some(FAST_OPEN_EXPERIMENT),
            _ => false,
        }
    }
}

/// Iterates over the options of a TCP header; stops at the end mark or at a malformed option.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    bytes: &'a [u8],
    at: usize,
    malformed: bool,
}

impl<'a> Options<'a> {
    /// Creates an iterator over raw option bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, malformed: false }
    }

    /// Returns the option bytes as they are, padding included.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the first option of a kind.
    #[must_use]
    pub fn find(self, kind: u8) -> Option<TcpOption<'a>> {
        let mut options = self;
        options.find_map(|option| (option.kind == kind).then_some(option))
    }

    /// Returns whether an option of a kind is present.
    #[must_use]
    pub fn has(&self, kind: u8) -> bool {
        self.clone().find(kind).is_some()
    }

    /// Returns whether a signature (TCP-MD5 or TCP-AO) covers the segment.
    #[must_use]
    pub fn are_signed(&self) -> bool {
        self.has(MD5_SIGNATURE) || self.has(AUTHENTICATION)
    }

    /// Returns whether a Fast Open cookie, or a request for one, is present in either form.
    #[must_use]
    pub fn has_fast_open(&self) -> bool {
        self.clone().any(|option| option.is_fast_open())
    }

    /// Returns whether a Multipath TCP option is present.
    #[must_use]
    pub fn has_multipath(&self) -> bool {
        self.has(MULTIPATH)
    }

    /// Returns the timestamp option.
    #[must_use]
    pub fn timestamps(&self) -> Option<Timestamps> {
        let option = self.clone().find(TIMESTAMPS)?;
        if option.data.len() != 8 {
            return None;
        }
        Some(Timestamps { value: be32(option.data, 0)?, echo: be32(option.data, 4)? })
    }

    /// Returns the maximum segment size that the sender announced.
    #[must_use]
    pub fn maximum_segment_size(&self) -> Option<u16> {
        let option = self.clone().find(MAXIMUM_SEGMENT_SIZE)?;
        if option.data.len() != 2 {
            return None;
        }
        be16(option.data, 0)
    }

    /// Returns whether iteration ended at an option of length 0 or 1, or one that is too long.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        self.malformed
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.at;
            let rest = self.bytes.get(start..)?;
            let (&kind, rest) = rest.split_first()?;
            match kind {
                END => {
                    self.at = self.bytes.len();
                    return None;
                }
                NO_OPERATION => self.at += 1,
                _ => {
                    let len = rest.first().map_or(0, |len| usize::from(*len));
                    let end = start + len;
                    let Some(data) = self.bytes.get(start + 2..end) else {
                        self.malformed = true;
                        self.at = self.bytes.len();
                        return None;
                    };
                    self.at = end;
                    return Some(TcpOption { kind, data, range: start..end });
                }
            }
        }
    }
}

/// The values of a timestamp option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock (TSval).
    pub value: u32,
    /// The peer's clock, echoed (TSecr).
    pub echo: u32,
}

impl Timestamps {
    /// Encodes the option with two bytes of padding in front, the form that stacks expect.
    #[must_use]
    pub fn encode(self) -> [u8; 12] {
        let mut bytes = [NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        let values = self.value.to_be_bytes().into_iter().chain(self.echo.to_be_bytes());
        for (to, from) in bytes.iter_mut().skip(4).zip(values) {
            *to = from;
        }
        bytes
    }
}

pub(crate) fn are_well_formed(bytes: &[u8]) -> bool {
    let mut options = Options::new(bytes);
    while options.next().is_some() {}
    !options.is_malformed()
}
