//! What the datapath remembers and reports: keys, connection entries, bounded tables, reasons, flow records.
//!
//! Start with [`Reason`] (why a packet was refused, one enum for every place that says so) and [`FlowKey`]
//! (which connection a packet belongs to). Everything a stranger can make grow is bounded here.
//! This crate holds state and counts; it never judges a packet, reads no clock and does no I/O.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

mod aggregate;
mod bounded;
mod bucket;
mod deadline;
mod fragment;
mod half_open;
mod held;
mod idle;
mod key;
mod reason;
mod record;
mod slots;

pub use aggregate::{Aggregator, RecordKey};
pub use bounded::BoundedMap;
pub use bucket::{Budget, BudgetConfig};
pub use deadline::Deadlines;
pub use fragment::{FragmentKey, FragmentTable};
pub use half_open::{HalfOpenKey, HalfOpenLimits, HalfOpenTable, Priority};
pub use held::{HeldLimits, HeldQueue};
pub use idle::{FRAGMENT_TIME, Heard, idle_time};
pub use key::{ConnectionClass, ConnectionEntry, FlowKey, NO_PEER_SLOT, PuSlot};
pub use reason::{Blame, Reason};
pub use record::{Action, FlowEvent, FlowRecord, Party, Traffic};
pub use slots::{Placed, SlotTable};
