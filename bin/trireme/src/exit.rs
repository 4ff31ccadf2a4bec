//! Exit codes, the same for every verb.

use std::process::ExitCode;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, the configuration or a key is wrong: change it and try again. Exit code 2.
    Usage(anyhow::Error),
    /// The machine, the agent or a peer did not do its part. Exit code 3.
    Runtime(anyhow::Error),
}

/// What a verb ends with: success, or success with the answer "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Exit code 0.
    Yes,
    /// Exit code 1: a connection would be refused, a check failed.
    No,
}

/// The outcome of a verb.
pub(crate) type Outcome = Result<Answer, Failure>;

/// Sorts errors by who has to act.
pub(crate) trait Blame<T> {
    /// The operator's input is at fault.
    fn usage(self) -> Result<T, Failure>;
    /// The machine is at fault.
    fn runtime(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn usage(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Usage(error.into()))
    }

    fn runtime(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Runtime(error.into()))
    }
}

/// Prints a failure on standard error and gives the exit code.
pub(crate) fn code(outcome: Outcome) -> ExitCode {
    let (error, code) = match outcome {
        Ok(Answer::Yes) => return ExitCode::SUCCESS,
        Ok(Answer::No) => return ExitCode::from(1),
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Runtime(error)) => (error, 3),
    };
    eprintln!("trireme: {}", one_line(&error));
    ExitCode::from(code)
}

/// An error and its causes, each said once.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_and_repeated_ones_dropped() {
        let error = anyhow::anyhow!("no such file").context("cannot read a").context("cannot read a");
        assert_eq!(one_line(&error), "cannot read a: no such file");
    }
}
