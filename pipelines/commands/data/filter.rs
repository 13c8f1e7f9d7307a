//! Which rows a command is about.

use crate::cli::FilterArguments;
use espalier_dataset::{DatasetError, Row, RowSource, Split, Verdict};

/// A filter whose words are made ready.
pub(super) struct Filter {
    arguments: FilterArguments,
    text: Option<String>,
    reason: Option<String>,
}

impl Filter {
    pub(super) fn new(arguments: FilterArguments) -> Self {
        let text = arguments.text.as_ref().map(|text| text.to_lowercase());
        let reason = arguments.reason.as_ref().map(|text| text.to_lowercase());
        Self { arguments, text, reason }
    }

    /// Whether a row fits.
    pub(super) fn fits(&self, row: &Row) -> bool {
        let FilterArguments { leaf, flow, accepted, rejected, held_out, .. } = &self.arguments;
        let in_branch = |branch: &str| {
            let rest = row.leaf.strip_prefix(branch.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let said = |text: &String| row.turns.iter().any(|turn| turn.content.to_lowercase().contains(text));
        leaf.as_deref().is_none_or(in_branch)
            && flow.as_ref().is_none_or(|flow| *flow == row.flow)
            && (!accepted || row.verdict == Verdict::Accepted)
            && (!rejected || row.verdict == Verdict::Rejected)
            && (!held_out || row.split == Split::HeldOut)
            && self.reason.as_ref().is_none_or(|words| row.reason.to_lowercase().contains(words))
            && self.text.as_ref().is_none_or(said)
    }

    /// The rows of a source that fit.
    pub(super) fn rows<'a>(&'a self, source: &RowSource) -> impl Iterator<Item = Result<Row, DatasetError>> + use<'a> {
        source.rows().filter(|row| row.as_ref().map_or(true, |row| self.fits(row)))
    }
}
