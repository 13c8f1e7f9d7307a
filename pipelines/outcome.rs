//! How a command ends: exit codes that scripts and clusters rely on, and the errors that choose them.

use espalier_dataset::DatasetError;
use espalier_eval::EvalError;
use espalier_inference::EngineError;
use espalier_model::ModelError;
use espalier_quantize::QuantizeError;
use espalier_sdg::SdgError;
use espalier_train::{DeviceError, TrainError};
use std::fmt;
use std::io;
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
    Refused,
    TryAgain,
}

impl Failure {
    /// Wrong usage or input (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, message: message.into(), hint: None }
    }

    /// A gate refused a result (exit code 3).
    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Refused, message: message.into(), hint: None }
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

/// Exit code for an error: 2 wrong usage or input, 3 a gate refused, 75 try again, 130 interrupted, 1 for the rest.
pub fn error_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return 130;
        }
        let kind = cause.downcast_ref::<Failure>().map_or_else(|| kind_of(cause), |failure| Some(failure.kind));
        match kind {
            Some(FailureKind::Usage) => return 2,
            Some(FailureKind::Refused) => return 3,
            Some(FailureKind::TryAgain) => return 75,
            None => {}
        }
    }
    1
}

/// What a person reads: each cause on its own line unless the line above already says it, and the remedy.
pub fn error_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    if error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_full) && !text.contains("hint: ") {
        text.push_str(
            "\n  hint: free some space, or choose a folder on another disk; finished work is kept, and the same command \
             goes on",
        );
    }
    text
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Whether an error of the crates below is the fault of the input, or of a server that may come back.
fn kind_of(error: &(dyn std::error::Error + 'static)) -> Option<FailureKind> {
    if let Some(error) = error.downcast_ref::<ModelError>() {
        return of_model(error);
    }
    if let Some(error) = error.downcast_ref::<EngineError>() {
        return of_engine(error);
    }
    if let Some(error) = error.downcast_ref::<DatasetError>() {
        return of_rows(error);
    }
    if error.is::<DeviceError>() {
        return Some(FailureKind::Usage);
    }
    if let Some(error) = error.downcast_ref::<TrainError>() {
        return match error {
            TrainError::Model(error) => of_model(error),
            TrainError::File { source, .. } => of_file(source),
            TrainError::Dataset(error) => of_rows(error),
            TrainError::Unstable { .. } => None,
            _ => Some(FailureKind::Usage),
        };
    }
    if let Some(error) = error.downcast_ref::<QuantizeError>() {
        return match error {
            QuantizeError::Model(error) => of_model(error),
            QuantizeError::Engine(error) => of_engine(error),
            QuantizeError::UnknownFileType { .. } | QuantizeError::Override { .. } => Some(FailureKind::Usage),
            _ => None,
        };
    }
    match error.downcast_ref::<EvalError>() {
        Some(EvalError::Engine(error)) => of_engine(error),
        Some(EvalError::File { source, .. }) => of_file(source),
        Some(
            EvalError::Line { .. }
            | EvalError::Task { .. }
            | EvalError::TaskFile { .. }
            | EvalError::UnknownTask { .. }
            | EvalError::NotANumber { .. }
            | EvalError::NotComparable { .. }
            | EvalError::Results { .. },
        ) => Some(FailureKind::Usage),
        _ => of_generation(error),
    }
}

fn of_rows(error: &DatasetError) -> Option<FailureKind> {
    match error {
        DatasetError::File { source, .. } => of_file(source),
        DatasetError::Table { .. } | DatasetError::Line { .. } | DatasetError::Problem(_) => Some(FailureKind::Usage),
        DatasetError::Grouping { .. } | DatasetError::Vectors(_) => None,
    }
}

fn of_generation(error: &(dyn std::error::Error + 'static)) -> Option<FailureKind> {
    match error.downcast_ref::<SdgError>()? {
        SdgError::Engine(error) => of_engine(error),
        SdgError::Dataset(error) => of_rows(error),
        SdgError::Interrupted { .. } => None,
        _ => Some(FailureKind::Usage),
    }
}

fn of_model(error: &ModelError) -> Option<FailureKind> {
    match error {
        ModelError::File { source, .. } => of_file(source),
        ModelError::In { source, .. } => of_model(source),
        _ => Some(FailureKind::Usage),
    }
}

fn of_engine(error: &EngineError) -> Option<FailureKind> {
    match error {
        EngineError::Model(error) => of_model(error),
        EngineError::GivenUp { .. } | EngineError::ServersGone { patience: Some(_), .. } => Some(FailureKind::TryAgain),
        _ => Some(FailureKind::Usage),
    }
}

/// A file that is not there was named wrongly; anything else is the machine's.
fn of_file(error: &io::Error) -> Option<FailureKind> {
    (error.kind() == io::ErrorKind::NotFound).then_some(FailureKind::Usage)
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
    fn a_cause_is_said_once_and_a_full_disk_has_a_remedy() {
        let inner = ModelError::UnsupportedArchitecture { architecture: "mamba".into() }.in_file("m.gguf".as_ref());
        let error = anyhow::Error::from(inner).context("stage `generate` failed");
        assert_eq!(error_text(&error).matches("mamba").count(), 1);
        assert_eq!(error_code(&error), 2);
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("cannot write rows");
        assert!(error_text(&full).contains("free some space"));
        assert_eq!(error_code(&full), 1);
    }

    #[test]
    fn a_hint_stands_on_its_own_line() {
        let failure = Failure::usage("no such stage `trian`").hint("stages: generate, train");
        assert_eq!(failure.to_string(), "no such stage `trian`\n  hint: stages: generate, train");
    }
}
