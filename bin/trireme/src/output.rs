//! Printing: tables for people, JSON and YAML for programs; a closed pipe ends the output quietly.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use comfy_table::{ContentArrangement, Table};
use trireme_identity::time::WallTime;

/// Writes a text to standard output; that nobody reads any more is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    emit(text).map(|_| ())
}

/// Writes a part of a longer output; breaks if nobody reads any more.
pub(crate) fn emit(text: &str) -> io::Result<ControlFlow<()>> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error),
    }
}

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// On a terminal.
    On,
    /// Elsewhere, and where `NO_COLOR` is set.
    Off,
}

impl Colour {
    /// What standard output takes.
    pub(crate) fn of_stdout() -> Self {
        if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            Self::On
        } else {
            Self::Off
        }
    }

    /// A text in a colour (the code of SGR).
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// A table without borders that wraps on a terminal and never elsewhere.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    table
}

/// The text of a table, without blanks at the ends of lines.
pub(crate) fn render(table: &Table) -> String {
    let mut text = String::new();
    for line in table.to_string().lines() {
        // Without borders every cell begins with one blank.
        text.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
        text.push('\n');
    }
    text
}

/// A wall-clock time in UTC: `2026-11-25T02:30:00Z`.
pub(crate) fn time(at: WallTime) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|secs| jiff::Timestamp::from_second(secs).ok())
        .map_or_else(|| at.0.to_string(), |time| time.to_string())
}
