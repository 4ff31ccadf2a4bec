//! Finding the first rule that matches, without asking those that cannot.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;

use trireme_identity::{Protocol, TagSet};

use crate::clause::Truth;
use crate::{FlowPolicy, Order, RuleAction, Services};

mod address;
mod tags;

pub(crate) use address::AddressIndex;
pub(crate) use tags::TagIndex;

/// The connection a decision is about.
pub(crate) struct Probe<'a> {
    pub(crate) who: Who<'a>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) complete: &'a BTreeSet<Box<str>>,
}

/// The other end of the connection, as far as it is known.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    /// It has an identity.
    Peer { tags: &'a TagSet, partial: bool, address: Option<IpAddr> },
    /// It has none.
    Address(IpAddr),
}

/// What a rule says apart from whom it is about.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) order: Order,
    pub(crate) flow: FlowPolicy,
    pub(crate) services: Services,
    /// Its place among the rules of its direction, from 1.
    pub(crate) number: Option<u16>,
}

/// A matching rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'a> {
    pub(crate) facts: &'a Facts,
    /// The prefix by which an address rule matched.
    pub(crate) prefix_len: Option<u8>,
    /// A tag the peer may be hiding could undo the match.
    pub(crate) doubtful: bool,
}

/// What to do with a Pass that only a hidden tag could undo.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownPass {
    Report,
    Ignore,
}

impl Hit<'_> {
    /// The order of two matches: their places, then names and content.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.place(other)
            .then_with(|| self.facts.flow.cmp(&other.facts.flow))
            .then_with(|| self.facts.number.cmp(&other.facts.number))
    }

    /// Whether an observing match would have acted in place of `acting`, had it been allowed to.
    pub(crate) fn is_before(&self, acting: Option<Self>) -> bool {
        acting.is_none_or(|acting| self.place(&acting).is_le())
    }

    /// (tier, priority), the longer prefix between two addresses, then reject, pass, accept.
    fn place(&self, other: &Self) -> Ordering {
        let longest = match (self.prefix_len, other.prefix_len) {
            (Some(own), Some(other)) => other.cmp(&own),
            (Some(_) | None, _) => Ordering::Equal,
        };
        let order = self.facts.order.cmp(&other.facts.order);
        order.then(longest).then(self.facts.flow.action.cmp(&other.facts.flow.action))
    }
}

/// Rules of one tier that behave alike towards observation.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) tags: TagIndex,
    /// Address rules for peers without identity: all of them.
    pub(crate) addresses: AddressIndex,
    /// Address rules that judge every peer.
    pub(crate) any_peer: AddressIndex,
}

impl Stage {
    /// The first rule that matches, in the order of [`Hit::compare`].
    pub(crate) fn first(&self, probe: &Probe<'_>, unknown: UnknownPass) -> Option<Hit<'_>> {
        match probe.who {
            Who::Address(address) => self.addresses.first(address, probe),
            Who::Peer { tags, partial, address } => {
                let by_tags = self.tags.first(tags, partial, probe, unknown);
                let by_address = address.and_then(|address| self.any_peer.first(address, probe));
                match (by_tags, by_address) {
                    (Some(tags), Some(address)) if address.compare(&tags).is_lt() => Some(address),
                    (Some(hit), _) | (None, Some(hit)) => Some(hit),
                    (None, None) => None,
                }
            }
        }
    }
}

/// Applies what the tags leave unknown to an action: against the peer.
pub(crate) fn settle(truth: Truth, action: RuleAction, unknown: UnknownPass) -> Option<bool> {
    match (truth, action) {
        (Truth::No, _) | (Truth::Unknown, RuleAction::Accept) => None,
        (Truth::Yes, _) | (Truth::Unknown, RuleAction::Reject) => Some(false),
        (Truth::Unknown, RuleAction::Pass) => (unknown == UnknownPass::Report).then_some(true),
    }
}
