//! What tests that run the programs without an agent share with the data path: its words, so that they test those too.

use trireme_bpf::{Connection, HalfOpen, OwnTokenState, Plane, PlaneError};
use trireme_datapath::{HalfOpenEntry, Lesson, OwnAttachment};
use trireme_flow::ConnectionEntry;

use super::convert::{self, fast};
use super::lesson;

/// Writes one fact into the tables of the programs, as the agent does; a unit's own tokens are left out.
///
/// # Errors
/// [`PlaneError`] if the kernel refuses.
pub fn write_lesson(plane: &mut Plane, told: &Lesson) -> Result<(), PlaneError> {
    lesson::write(plane, told)
}

/// A token of a unit's own, as the unit's state names it.
#[must_use]
pub fn own_token(attachment: &OwnAttachment) -> OwnTokenState {
    fast::own_token(attachment)
}

/// An entry of the connection table in the engine's words.
#[must_use]
pub const fn entry(connection: &Connection) -> ConnectionEntry {
    convert::entry(connection)
}

/// And back.
#[must_use]
pub const fn connection(entry: &ConnectionEntry) -> Connection {
    convert::connection(entry)
}

/// A handshake handed over, in the engine's words.
#[must_use]
pub fn half_open(handed: &HalfOpen) -> HalfOpenEntry {
    fast::half_open(handed)
}
