//! Rules that hand the handshakes of a unit's TCP connections to a netfilter queue and leave released connections to
//! the kernel.
//!
//! Start from [`apply`], which writes what a [`RuleSet`] says into the calling thread's network namespace, in the
//! dialect of a [`BackEnd`]. [`read`] tells what is there, [`intact`] whether somebody changed it, [`remove`] takes
//! exactly that away again. [`Capabilities`] finds the back end.
//!
//! # What the rules do
//!
//! * SYN and SYN-ACK are queued always, and end what an older connection on the same tuple was granted.
//! * Other TCP is queued unless the field of the connmark says [`released`](RuleSet::released); on the way in, a payload
//!   that begins with the magic is queued even then. In IPv6 only TCP directly behind the fixed header is left alone.
//! * ICMP and ICMPv6 errors are queued. Neighbour discovery and multicast listeners always pass. Other protocols pass
//!   or are dropped.
//! * A verdict with a value in the field of the packet's mark is saved into the connmark after the queue; the value of
//!   all ones clears it. What a process or another rule writes into the field is cleared before the queue.
//!
//! A verdict accepts or drops. One that repeats the hook comes back to the queue: the rules clear its mark first.
//!
//! Bits of marks and connmarks outside of the field are never touched, nor are rules of others.
//!
//! # What they cannot do
//!
//! * Loopback is left alone, and that is decided before addresses are translated: who can write translation rules in
//!   the unit's namespace can redirect a loopback connection elsewhere. Who can do that can delete our rules, too.
//! * Routed packets, raw link-layer sockets and what a network device emits by itself are not seen.
//! * With iptables, a queued packet that was accepted goes on at the next table: it skips what others have in the same
//!   chain behind our jump (`OUTPUT` and `INPUT` of `mangle`).
//! * With iptables, mangle is written before filter, and IPv4 before IPv6. Each is atomic by itself; in between,
//!   connections are queued more than needed, never less. What fails halfway is taken back.
//!
//! This crate must not decide anything about a packet.

#![forbid(unsafe_code)]

mod back_end;
mod capabilities;
mod changes;
mod error;
mod host;
mod in_force;
mod iptables;
mod mark;
mod nft;
mod operations;
mod parts;
mod programs;
mod rule_set;
mod rules;
mod turn;

pub use back_end::BackEnd;
pub use capabilities::Capabilities;
pub use changes::Changes;
pub use error::NetfilterError;
pub use host::{HostField, HostInForce, HostJudged, HostLook, HostSet, HostUnit, Unqueued};
pub use in_force::{Damage, Denied, InForce, Look};
pub use mark::{FieldError, MarkField};
pub use operations::{apply, denied, intact, look, read, remove};
pub use programs::Programs;
pub use rule_set::{OtherProtocols, RuleSet, RuleSetError, Unanswered};
