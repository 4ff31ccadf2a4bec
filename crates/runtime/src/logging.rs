//! Log output: fields on one line per event, colour only on a terminal, JSON on request.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// The least severe event that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// The program stops or gives something up.
    Error,
    /// Someone should look.
    Warn,
    /// The operator sees a change.
    #[default]
    Info,
    /// Per flow, or a choice made.
    Debug,
    /// Per packet.
    Trace,
}

impl LogLevel {
    /// The level's name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no log level.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log level is error, warn, info, debug or trace, not {0:?}")]
pub struct UnknownLevel(String);

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// What to log and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe event written when `TRIREME_LOG` is not set.
    pub level: LogLevel,
    /// Text or JSON.
    pub format: LogFormat,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `TRIREME_LOG` does not hold a filter such as `info,trireme_datapath=debug`.
    #[error("TRIREME_LOG is not a log filter; write for example info,trireme_datapath=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The process has a subscriber already.
    #[error("logging is already set up in this process")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends the process's log events to standard error.
///
/// The environment variable `TRIREME_LOG` (a filter such as `info,trireme_datapath=debug`) wins over
/// [`LogConfig::level`]. Colour is used only if standard error is a terminal and `NO_COLOR` is not set.
///
/// # Errors
/// [`LoggingError`] if the filter does not parse or a subscriber exists.
pub fn init(config: LogConfig) -> Result<(), LoggingError> {
    let filter = match std::env::var("TRIREME_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(LoggingError::Filter)?,
        _ => EnvFilter::new(config.level.name()),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(colour);
    match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    }
    .map_err(LoggingError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_parses_from_its_own_name_and_from_nothing_else() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!(
            "INFO".parse::<LogLevel>().map_err(|e| e.to_string()),
            Err("a log level is error, warn, info, debug or trace, not \"INFO\"".to_owned())
        );
    }
}
