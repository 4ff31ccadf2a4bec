//! Which token of ours a peer gets to see while agreement keys roll over.
//!
//! The key that worked last with a peer's node stays in use; a newer one is tried once per peer and rotation, and the
//! first repetition of an unanswered try goes back to the old one.

use trireme_flow::Reason;
use trireme_identity::Direction;
use trireme_token::rotation::OwnToken;
use trireme_token::{PairKeys, Role, TokenId, Verified};

use std::sync::Arc;

use super::refuse::Refused;
use super::{Context, Engine};
use crate::KeyName;

/// The token to show, and the one to go back to.
pub(super) struct Choice {
    pub(super) own: OwnToken,
    pub(super) older: Option<OwnToken>,
}

/// Whether the back end asks for the newest token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    Asked,
    NotAsked,
}

impl Renewal {
    pub(super) const fn of(packet: &crate::Packet) -> Self {
        if packet.renewal { Self::Asked } else { Self::NotAsked }
    }
}

impl Engine {
    /// The token to show to a peer; `proven` is the token of ours that its MAC named.
    pub(super) fn choose_for_peer<V>(
        &mut self,
        cx: &Context<'_, V>,
        direction: Direction,
        peer: &TokenId,
        proven: Option<TokenId>,
        renewal: Renewal,
    ) -> Result<Choice, Box<Refused>> {
        let (newest, older) = self.usable(cx, direction)?;
        let key = self.peers.habits(peer).and_then(|habits| habits.own_key);
        let older = older.filter(|own| match proven {
            Some(proven) => own.token.id == proven,
            None => Some(KeyName::from(own.key.public())) == key,
        });
        let name = Some(KeyName::from(newest.key.public()));
        let tried = match self.peers.habits(peer) {
            Some(habits) if older.is_some() => std::mem::replace(&mut habits.tried_key, name),
            Some(_) | None => None,
        };
        Ok(Choice::new(newest, older, renewal == Renewal::NotAsked && tried == name))
    }

    /// The token to show at an address behind which a node used the token `holds` last.
    pub(super) fn choose_for_service<V>(
        &mut self,
        cx: &Context<'_, V>,
        holds: Option<TokenId>,
    ) -> Result<Choice, Box<Refused>> {
        let (newest, older) = self.usable(cx, Direction::Egress)?;
        let older = older.filter(|own| Some(own.token.id) == holds);
        let name = Some(KeyName::from(newest.key.public()));
        let tried = match self.known.get_mut(&(cx.slot, cx.key.remote)) {
            Some(known) if older.is_some() => std::mem::replace(&mut known.tried_key, name),
            Some(_) | None => None,
        };
        Ok(Choice::new(newest, older, tried == name))
    }

    /// The newest token and the one before it.
    fn usable<V>(
        &self,
        cx: &Context<'_, V>,
        direction: Direction,
    ) -> Result<(OwnToken, Option<OwnToken>), Box<Refused>> {
        let mut usable = self.own.usable(&cx.unit.id, cx.now.wall).into_iter().cloned();
        let newest = usable.next().ok_or_else(|| Refused::new(direction, Reason::TokenUnavailable))?;
        Ok((newest, usable.next()))
    }

    /// The token of ours under whose keys a message of the peer verifies: the one in use, else any that may be on its way.
    /// The one in use if none does.
    pub(super) fn answered_token<V>(
        &mut self,
        cx: &Context<'_, V>,
        in_use: &OwnToken,
        peer: &Verified,
        role: Role,
        verifies: impl Fn(&OwnToken, &PairKeys) -> bool,
    ) -> Result<(OwnToken, Arc<PairKeys>), Reason> {
        let keys = self.keys(in_use, peer, role)?;
        if verifies(in_use, &keys) {
            return Ok((in_use.clone(), keys));
        }
        let others = self.own.accepted(&cx.unit.id, cx.now.wall);
        let others: Vec<_> = others.filter(|own| own.token.id != in_use.token.id).cloned().collect();
        for own in others {
            let other = self.keys(&own, peer, role)?;
            if verifies(&own, &other) {
                return Ok((own, other));
            }
        }
        Ok((in_use.clone(), keys))
    }
}

impl Choice {
    fn new(newest: OwnToken, older: Option<OwnToken>, tried: bool) -> Self {
        match older {
            Some(older) if tried => Self { own: older, older: None },
            older => Self { own: newest, older },
        }
    }
}
