//! How a command ends: exit codes that scripts and clusters rely on, and the errors that choose them.

use std::fmt;
use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Everything asked for is done.
    Done,
    /// Stopped by a signal; the same command goes on from here.
    Interrupted,
    /// A gate refused the result.
    Refused,
}

/// The remedy-bearing error of the command line. Its kind chooses the exit code.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    Usage,
    TryAgain,
}

impl Failure {
    /// Wrong usage or input (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, message: message.into(), hint: None }
    }

    /// Something outside that may pass: a lock, a network, a server (exit code 75).
    pub fn try_again(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::TryAgain, message: message.into(), hint: None }
    }

    /// Adds what the person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Raised inside a stage when the stop flag was seen; becomes exit code 130.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Exit code for a finished command: 0 done, 3 a gate refused, 130 interrupted and resumable.
pub fn status_code(status: Status) -> ExitCode {
    ExitCode::from(match status {
        Status::Done => 0,
        Status::Refused => 3,
        Status::Interrupted => 130,
    })
}

/// Exit code for an error: 2 wrong usage or input, 75 try again, 130 interrupted, 1 for the rest.
pub fn error_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return 130;
        }
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return match failure.kind {
                FailureKind::Usage => 2,
                FailureKind::TryAgain => 75,
            };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code() {
        assert_eq!(error_code(&anyhow::anyhow!("disk")), 1);
        assert_eq!(error_code(&Failure::usage("bad").into()), 2);
        assert_eq!(error_code(&anyhow::Error::from(Failure::try_again("busy")).context("fetching")), 75);
        assert_eq!(error_code(&Interrupted.into()), 130);
    }

    #[test]
    fn a_hint_stands_on_its_own_line() {
        let failure = Failure::usage("no such stage `trian`").hint("stages: generate, train");
        assert_eq!(failure.to_string(), "no such stage `trian`\n  hint: stages: generate, train");
    }
}
