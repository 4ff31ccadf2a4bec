//! Why: one closed enum for verdicts, counters, flow records, logs and kind-4 messages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who has to act on a [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blame {
    /// Nobody: the ordinary course of things.
    Nobody,
    /// The packet itself, or the network that carried it.
    Network,
    /// The peer or its node.
    Peer,
    /// The workload at this edge.
    Workload,
    /// The policy that is in force; it does what it says.
    Policy,
    /// A limit of this node.
    Capacity,
    /// This node's configuration or the agent itself.
    Node,
}

macro_rules! reasons {
    ($($blame:ident { $($code:literal $variant:ident $name:literal $doc:literal => $remedy:literal;)+ })+) => {
        /// Why a packet or a connection was treated as it was.
        ///
        /// Names and codes are stable; a code is never used again for something else. Source: spec/tap.md, "Reasons".
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "&'static str", try_from = "String")]
        #[repr(u16)]
        pub enum Reason {
            $($(
                #[doc = $doc]
                #[doc = ""]
                #[doc = concat!("Remedy: ", $remedy)]
                $variant = $code,
            )+)+
        }

        impl Reason {
            /// Every reason, in the order of the codes.
            pub const ALL: &'static [Self] = &[$($(Self::$variant,)+)+];

            /// The stable name, in kebab case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name,)+)+ }
            }

            /// The stable number, as kind-4 messages carry it.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $($(Self::$variant => $code,)+)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $($(Self::$variant => $doc,)+)+ }
            }

            /// What an operator can do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $($(Self::$variant => $remedy,)+)+ }
            }

            /// Who has to act on it.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $($(Self::$variant)|+ => Blame::$blame,)+ }
            }
        }
    };
}

reasons! {
    Nobody {
        0 Accepted "accepted" "The policy allows the connection." => "none needed.";
        1 Consumed "consumed" "The segment was a message between enforcers and ends here." => "none needed.";
        2 Reauthorized "reauthorized" "A live connection was judged again after a change and goes on." => "none needed.";
        3 Unjudged "unjudged" "The protocol passed unjudged: the unit's settings allow it and no rule speaks about it." => "set other-protocols to deny, or write a rule.";
    }
    Network {
        100 Malformed "malformed" "The packet contradicts itself: lengths, offsets or options do not fit." => "look for a broken sender or a scan.";
        101 Truncated "truncated" "The packet ends before its headers do." => "look for a broken sender or a capture limit.";
        102 Fragment "fragment" "The packet is a fragment of TCP, or a first fragment without its whole header." => "lower the MTU or enable path MTU discovery.";
        103 OddFlags "odd-flags" "The TCP flags form no combination that a stack sends." => "look for a scan.";
        104 BadChecksum "bad-checksum" "The TCP or IP checksum is wrong; rewriting must not repair it." => "look for a broken link or offload driver.";
        105 ProtocolDenied "protocol-denied" "No rule speaks about the protocol, and the unit's settings do not allow it." => "write a rule about it, or allow it in the unit's settings.";
        106 IcmpUnknown "icmp-unknown" "The ICMP error quotes no connection or flow that is known here." => "none; it is stray or forged.";
        107 HostilePath "hostile-path" "A SYN-ACK acknowledged the payload of a SYN: the path or stack takes it for data." => "exclude the destination from the target networks.";
        108 PlainFallback "plain-fallback" "SYNs with identity found no answer, so the third retransmission left without." => "exclude the destination from the target networks, or set strict-identity.";
        109 SimultaneousOpen "simultaneous-open" "Both ends sent a SYN for the same connection." => "have one side listen.";
        110 Stray "stray" "The packet belongs to no connection that is known here." => "none for scans; after a restart of the agent the application reconnects.";
        111 ProofMissing "proof-missing" "Data came before the initiator's proof and the proof did not follow in time." => "look for loss, or for a device that strips payloads of ACKs.";
        112 ResetUnproven "reset-unproven" "A reset did not fit the connection it aims at." => "none; it is late or forged.";
        113 FragmentOrphan "fragment-orphan" "The first fragment of the packet was not admitted here, or did not come in time." => "look for loss, or send smaller datagrams.";
        114 NoAnswer "no-answer" "An exchange of identities over UDP found no answer, so the address rules decide." => "install an agent there, or exclude the address from the target networks.";
        115 ProofUnconfirmed "proof-unconfirmed" "The proof of a flow over UDP was never confirmed, so the flow begins anew." => "look for loss on the path.";
    }
    Peer {
        200 TapMalformed "tap-malformed" "The TAP message is not in its one valid form." => "look for a foreign or broken implementation.";
        201 TapVersion "tap-version" "The TAP message has a version that is not spoken here." => "upgrade the older of the two agents.";
        202 TapUnexpected "tap-unexpected" "The TAP message is of a kind that does not belong on this segment." => "look for replayed or forged segments.";
        203 TokenUnknown "token-unknown" "The message names a token that is not held here; it has been asked for." => "none; the peer sends it at once.";
        204 MacMissing "mac-missing" "The message lacks the MAC that its kind needs." => "look for a forged segment.";
        205 MacInvalid "mac-invalid" "The MAC does not verify: the sender does not hold the key, or the message was changed or replayed." => "look for replays; check that both clocks and keys are current.";
        206 NonceMismatch "nonce-mismatch" "The message answers another nonce than the one in use." => "look for replayed segments.";
        207 TokenMalformed "token-malformed" "The token cannot be read." => "look for a foreign or broken implementation.";
        208 TokenNotCanonical "token-not-canonical" "The token is not in its one canonical form." => "look for a foreign or broken implementation.";
        209 TokenAlgorithm "token-algorithm" "The token uses another algorithm than its key type prescribes." => "look for a forged token, or mixed PSK and PKI nodes.";
        210 TokenKeyUnknown "token-key-unknown" "The key that signed the token is not known here." => "distribute the node's key, or let it send its certificate.";
        211 TokenSignature "token-signature" "The signature of the token or of its certificate is wrong." => "look for a forged token; check the shared key in PSK mode.";
        212 TokenExpired "token-expired" "The token is past its lifetime." => "check the clocks of both nodes.";
        213 TokenNotYetValid "token-not-yet-valid" "The token's lifetime has not begun." => "check the clocks of both nodes.";
        214 TokenLifetime "token-lifetime" "The token lives longer than is accepted here." => "lower the issuer's token lifetime.";
        215 TokenIssuer "token-issuer" "The token's issuer is not the node that its key belongs to." => "reissue the node's certificate; look for a forged token.";
        216 TokenConstraint "token-constraint" "The node is not allowed to claim one of the tags." => "widen the constraints of its certificate or correct the tags.";
        217 TokenUntrusted "token-untrusted" "The certificate leads to no trusted root." => "add the root, or reissue the certificate.";
        218 CredentialExpired "credential-expired" "The certificate or key token is outside its lifetime." => "renew it.";
        219 TokenRevoked "token-revoked" "The token, its key or its node is on the deny list." => "none; that is its purpose.";
        220 RefusedByPeer "refused-by-peer" "The peer's enforcer says that it refused the connection." => "see the peer's flow records; its reason and rule are in the explanation.";
        221 Downgraded "downgraded" "A peer inside the target networks showed no identity and was judged by address." => "install an agent there, or set strict-identity.";
        222 StrictIdentity "strict-identity" "A peer inside the target networks showed no identity, and this unit insists on one." => "install an agent there, or exclude the address from the target networks.";
        223 IdentityStripped "identity-stripped" "An authenticated handshake went on without its TAP message." => "look for a device that strips payloads.";
        224 AgreementKey "agreement-key" "The agreement key in the token yields no secret." => "look for a forged token.";
        225 TokenIdMismatch "token-id-mismatch" "The token attached is not the one that the header names." => "look for a forged segment.";
    }
    Workload {
        300 PayloadFromPu "payload-from-pu" "The processing unit put a payload on a SYN, SYN-ACK or reset; it was removed." => "turn TCP Fast Open off to be quiet.";
        301 TapFromPu "tap-from-pu" "The processing unit itself wrote a TAP message." => "look for a compromised workload.";
        302 UnitUnknown "unit-unknown" "No processing unit has this slot." => "none; the unit has gone.";
        303 RouterSpoof "router-spoof" "The processing unit sent a router's message: an advertisement or a redirect." => "look for a compromised workload; a router is no processing unit.";
    }
    Policy {
        400 PolicyIngress "policy-ingress" "The receiver's rules refuse the initiator." => "allow the tags named in the explanation.";
        401 PolicyEgress "policy-egress" "The transmitter's rules refuse the responder." => "allow the tags named in the explanation.";
        402 PolicyNoEgress "policy-no-egress" "The unit has no egress rule at all for the protocol." => "add an egress rule.";
        403 NetworkAcl "network-acl" "The IP rules for initiators without identity refuse the address." => "add a network rule.";
        404 ApplicationAcl "application-acl" "The IP rules for responders without identity refuse the address." => "add an application rule.";
        405 PolicyChanged "policy-changed" "A live connection is no longer allowed after a change of policy or identity." => "none; that is the purpose of the change.";
        406 PeerForgotten "peer-forgotten" "A live connection had to be judged again but its peer's identity is not remembered." => "raise the capacity of the peer table; the application reconnects.";
    }
    Capacity {
        500 HalfOpenUnit "half-open-unit" "The unit has too many handshakes in progress." => "raise the quota, or look for a flood.";
        501 HalfOpenSource "half-open-source" "The source has too many handshakes in progress." => "raise the bound, or look for a flood from there.";
        502 HalfOpenTotal "half-open-total" "The node has too many handshakes in progress." => "raise the capacity, or look for a flood.";
        503 HeldFull "held-full" "Too many packets wait for a proof." => "raise the bound, or look for a flood.";
        504 VerifySource "verify-source" "The source has used up its budget for signature checks." => "raise the budget, or look for a flood from there.";
        505 VerifyTotal "verify-total" "The node has used up its budget for signature checks." => "raise the budget, or look for a flood.";
        506 ParkedFull "parked-full" "Too many packets wait for a signature check." => "raise the bound, or look for a flood.";
        507 CookieDemanded "cookie-demanded" "Under load the sender has to show that it receives at its address." => "none; the peer answers at once.";
        508 HandshakeTimeout "handshake-timeout" "The handshake did not complete in time." => "look for loss on the path, or for a refusal at the other end.";
    }
    Node {
        600 TokenUnavailable "token-unavailable" "The unit has no valid token of its own." => "check the node's key and certificate.";
        601 TooLarge "too-large" "The packet has no room for the TAP message." => "send fewer tags or use a compact credential.";
        602 UnitRemoved "unit-removed" "The processing unit was removed while the packet waited." => "none needed.";
        603 Internal "internal" "The engine met a state that it does not expect and failed closed." => "report it with the flow record.";
    }
}

impl Reason {
    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }

    /// The reason with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Reason> for &'static str {
    fn from(reason: Reason) -> Self {
        reason.name()
    }
}

/// A name that no [`Reason`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reason")]
pub struct UnknownReason(String);

impl TryFrom<String> for Reason {
    type Error = UnknownReason;

    fn try_from(name: String) -> Result<Self, UnknownReason> {
        Self::from_name(&name).ok_or(UnknownReason(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_specification_lists_every_reason_and_no_other() {
        let text = include_str!("../../../../docs/spec/tap.md");
        let rows: Vec<_> =
            text.lines().filter(|line| line.contains("| `") && line.ends_with(". |")).collect();
        let expected: Vec<_> = Reason::ALL
            .iter()
            .map(|r| format!("| {} | `{r}` | {} | {} |", r.code(), r.meaning(), r.remedy()))
            .collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn names_and_codes_are_unique_and_lead_back() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!((names.len(), codes.len()), (Reason::ALL.len(), Reason::ALL.len()));
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
            assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        }
        assert_eq!(Reason::from_code(9), None);
        assert_eq!(Reason::try_from("nonsense".to_owned()), Err(UnknownReason("nonsense".into())));
    }
}
