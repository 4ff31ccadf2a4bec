//! What happens while no agent answers, as the operator writes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trireme::FailMode;

/// `closed`, `open` or `last-known-for 5m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FailModeText(pub(crate) FailMode);

impl FailModeText {
    /// Says what is wrong with it where tokens live for `lifetime_secs`.
    pub(super) fn beyond(self, lifetime_secs: u64) -> Option<String> {
        match self.0 {
            FailMode::LastKnownFor(time) if time.as_secs() > lifetime_secs => Some(format!(
                "{} is longer than tokens live (token.lifetime_secs = {lifetime_secs}): write at most {}",
                self.0,
                FailMode::LastKnownFor(Duration::from_secs(lifetime_secs))
            )),
            FailMode::LastKnownFor(_) | FailMode::Closed | FailMode::Open => None,
        }
    }
}

impl TryFrom<String> for FailModeText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mode = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["closed"] => Some(FailMode::Closed),
            ["open"] => Some(FailMode::Open),
            ["last-known-for", time] => duration(time).map(FailMode::LastKnownFor),
            _ => None,
        };
        mode.map(Self).ok_or_else(|| {
            format!("a fail mode is \"closed\", \"open\" or \"last-known-for 5m\" (s, m or h), not {text:?}")
        })
    }
}

impl From<FailModeText> for String {
    fn from(mode: FailModeText) -> Self {
        mode.0.to_string()
    }
}

/// A whole number of seconds, minutes or hours, at least a second.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let secs_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(secs_each).filter(|secs| *secs > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_so_that_it_is_read_again() {
        for (text, mode) in [
            ("closed", FailMode::Closed),
            ("open", FailMode::Open),
            ("last-known-for 90s", FailMode::LastKnownFor(Duration::from_secs(90))),
            ("last-known-for  5m", FailMode::LastKnownFor(Duration::from_mins(5))),
            ("last-known-for 2h", FailMode::LastKnownFor(Duration::from_hours(2))),
        ] {
            let read = FailModeText::try_from(text.to_owned()).unwrap();
            assert_eq!(read.0, mode);
            assert_eq!(FailModeText::try_from(String::from(read)).unwrap(), read);
        }
        for bad in [
            "",
            "shut",
            "open 5m",
            "last-known-for",
            "last-known-for 5",
            "last-known-for m",
            "last-known-for 0s",
            "last-known-for +5s",
            "last-known-for 5µ",
            "last-known-for 99999999999999999999h",
            "last-known-for 5124095576030432h",
        ] {
            assert!(FailModeText::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
