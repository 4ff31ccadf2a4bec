//! TAP messages: made with a key, checked with a key.

use trireme_identity::Protocol;
use trireme_token::{MacKey, Nonce, TokenId, mac, mac_matches};
use trireme_wire::ip::Family;
use trireme_wire::tap::{Attested, Body, Flags, Header, TapError};

use crate::Fault;

/// A token on its way to the peer, with the certificate or key token that travels beside it.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// The token.
    pub token: &'a [u8],
    /// The credential; empty if the peer has the key from elsewhere.
    pub credential: &'a [u8],
}

/// What the MAC field of a SYN or a token request holds.
#[derive(Clone, Copy, Debug)]
pub enum Seal<'a> {
    /// Nothing.
    Open,
    /// A MAC towards the peer with this token.
    Mac(&'a MacKey, TokenId),
    /// A stateless cookie.
    Cookie([u8; 16]),
}

/// Who sends and with which nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The sender's token.
    pub token: TokenId,
    /// The sender's nonce for this handshake.
    pub nonce: Nonce,
}

/// Makes kind 1.
///
/// # Errors
/// [`TapError`] if the attachment does not fit.
pub fn syn(
    protocol: Protocol,
    from: Sender,
    family: Family,
    seal: Seal<'_>,
    attached: Option<Attachment<'_>>,
) -> Result<Vec<u8>, TapError> {
    let (token_len, credential_len) = lengths(attached)?;
    let body = Body::Syn { family, protocol, token_len, credential_len };
    finish(from, body, seal, Nonce::ZERO, attached)
}

/// Makes kind 2, the answer to `peer`, or the attestation of a reset.
///
/// # Errors
/// [`TapError`] if the attachment does not fit or the endpoint is not a host's.
pub fn syn_ack(
    from: Sender,
    endpoint: Attested,
    key: &MacKey,
    peer: Sender,
    attached: Option<Attachment<'_>>,
) -> Result<Vec<u8>, TapError> {
    let (token_len, credential_len) = lengths(attached)?;
    let body = Body::SynAck { endpoint, token_len, credential_len };
    finish(from, body, Seal::Mac(key, peer.token), peer.nonce, attached)
}

/// Makes kind 3, the proof, an answer to `peer`; over UDP with the responder's key the confirmation as well.
///
/// # Errors
/// [`TapError`], never for valid arguments.
pub fn ack(protocol: Protocol, from: Sender, key: &MacKey, peer: Sender) -> Result<Vec<u8>, TapError> {
    let body = Body::Ack { echo: peer.nonce.0, protocol };
    finish(from, body, Seal::Mac(key, peer.token), peer.nonce, None)
}

/// Makes kind 3 from a MAC that was made before.
///
/// # Errors
/// [`TapError`], never for valid arguments.
pub fn ack_again(protocol: Protocol, from: Sender, mac: [u8; 16], peer: Sender) -> Result<Vec<u8>, TapError> {
    let body = Body::Ack { echo: peer.nonce.0, protocol };
    Header { flags: Flags::MAC, token_id: from.token.0, nonce: from.nonce.0, mac, body }.encode(&[], &[])
}

/// Makes kind 4. Without a key it says neither reason nor rule.
///
/// # Errors
/// [`TapError`], never for valid arguments.
pub fn refusal(
    protocol: Protocol,
    from: TokenId,
    key: Option<&MacKey>,
    peer: Sender,
    reason: u16,
    rule: u16,
) -> Result<Vec<u8>, TapError> {
    let from = Sender { token: from, nonce: Nonce::ZERO };
    let echo = peer.nonce.0;
    match key {
        Some(key) => {
            let body = Body::Refusal { echo, protocol, reason, rule };
            finish(from, body, Seal::Mac(key, peer.token), peer.nonce, None)
        }
        None => {
            finish(from, Body::Refusal { echo, protocol, reason: 0, rule: 0 }, Seal::Open, peer.nonce, None)
        }
    }
}

/// Makes kind 5, a request for the token of the sender of the nonce `echo`, or over UDP, with a zero nonce and a MAC, for a
/// new exchange.
///
/// # Errors
/// [`TapError`], never for valid arguments.
pub fn token_request(
    protocol: Protocol,
    from: TokenId,
    echo: Nonce,
    seal: Seal<'_>,
) -> Result<Vec<u8>, TapError> {
    let from = Sender { token: from, nonce: Nonce::ZERO };
    finish(from, Body::TokenRequest { echo: echo.0, protocol }, seal, echo, None)
}

/// Checks the MAC of a message that answers `receiver`.
///
/// # Errors
/// [`Fault::MacMissing`] or [`Fault::MacInvalid`].
pub fn check_mac(header: &Header, key: &MacKey, receiver: Sender) -> Result<(), Fault> {
    if !header.has_mac() {
        return Err(Fault::MacMissing);
    }
    let (front, back) = header.mac_input();
    if mac_matches(&mac(key, &front, &back, &receiver.token, &receiver.nonce), &header.mac) {
        Ok(())
    } else {
        Err(Fault::MacInvalid)
    }
}

/// The sender as the header names it.
#[must_use]
pub const fn sender(header: &Header) -> Sender {
    Sender { token: TokenId(header.token_id), nonce: Nonce(header.nonce) }
}

fn lengths(attached: Option<Attachment<'_>>) -> Result<(u16, u16), TapError> {
    let Some(Attachment { token, credential }) = attached else { return Ok((0, 0)) };
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).map_err(|_| TapError::Length);
    Ok((len(token)?, len(credential)?))
}

fn finish(
    from: Sender,
    body: Body,
    seal: Seal<'_>,
    peer_nonce: Nonce,
    attached: Option<Attachment<'_>>,
) -> Result<Vec<u8>, TapError> {
    let token_flag = if attached.is_some() { Flags::TOKEN } else { Flags::NONE };
    let mut header =
        Header { flags: token_flag, token_id: from.token.0, nonce: from.nonce.0, mac: [0; 16], body };
    match seal {
        Seal::Open => {}
        Seal::Cookie(cookie) => header.mac = cookie,
        Seal::Mac(key, peer_token) => {
            header.flags = header.flags.union(Flags::MAC);
            let (front, back) = header.mac_input();
            header.mac = mac(key, &front, &back, &peer_token, &peer_nonce);
        }
    }
    let Attachment { token, credential } = attached.unwrap_or(Attachment { token: &[], credential: &[] });
    header.encode(token, credential)
}
