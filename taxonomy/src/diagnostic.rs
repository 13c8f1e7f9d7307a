//! What is wrong, where, and how to mend it.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How much a finding matters. Only errors make a tree unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The tree cannot be used.
    Error,
    /// Probably not what was meant.
    Warning,
    /// Good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One finding about a file of a tree.
///
/// Displayed as `file:line:column: error: message`, then `  hint: ...` on a line of its own where there is a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as reached from the path that was given.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding without a hint.
    pub fn new(
        severity: Severity,
        file: impl Into<PathBuf>,
        line: usize,
        column: usize,
        message: impl Into<String>,
    ) -> Self {
        Self { severity, file: file.into(), line, column, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The order of reports: by file, line, column, then severity.
    pub fn by_place(&self, other: &Self) -> Ordering {
        (&self.file, self.line, self.column, self.severity, &self.message).cmp(&(
            &other.file,
            other.line,
            other.column,
            other.severity,
            &other.message,
        ))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, line, column, message, hint } = self;
        write!(formatter, "{}:{line}:{column}: {severity}: {message}", file.display())?;
        if let Some(hint) = hint {
            write!(formatter, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_place_message_and_hint() {
        let finding = Diagnostic::new(Severity::Error, "a/qna.yaml", 3, 5, "too few").with_hint("add some");
        assert_eq!(finding.to_string(), "a/qna.yaml:3:5: error: too few\n  hint: add some");
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["severity"], "error");
    }
}
