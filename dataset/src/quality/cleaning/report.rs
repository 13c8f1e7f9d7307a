//! What became of the rows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::entry::Entry;
use super::{Checked, Rejection};
use crate::funnel::{Funnel, FunnelLine};
use crate::quality::contamination::{Alike, Hit};
use crate::quality::meaning::SameMeaning;
use crate::quality::near::Duplicate;
use crate::row::{Row, Verdict};

/// Hits and twins that are listed; the others are counted.
const LISTED: usize = 1000;

/// What became of the rows of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CleaningReport {
    /// Rows that were read.
    pub rows: u64,
    /// Rows that are kept.
    pub kept: u64,
    /// Rows that were rejected before, by others.
    pub rejected_before: u64,
    /// Why rows were rejected here: categories with their counts, the most frequent first.
    pub rejected_by: Vec<(String, u64)>,
    /// Rows in which something was masked.
    pub masked_rows: u64,
    /// What was masked, by kind.
    pub masked: BTreeMap<&'static str, u64>,
    /// Rows that were known as kept before the first one: of earlier runs, seeds, tests.
    pub known_before: usize,
    /// The funnel of each leaf; rows without one stand under an empty name.
    pub leaves: Vec<FunnelLine>,
    /// Rows of which each benchmark has an item.
    pub contaminated_by: BTreeMap<String, u64>,
    /// Both sides of the first hits.
    pub contamination: Vec<Found<Hit>>,
    /// Both sides of the first hits by meaning.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contamination_by_meaning: Vec<Found<Alike>>,
    /// The first near-duplicates, with the rows that they repeat.
    pub near_duplicates: Vec<Found<Duplicate>>,
    /// The first rows that say what another one says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub same_meaning: Vec<Found<SameMeaning>>,
}

/// What was found in a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found<T> {
    /// Id of the row.
    pub id: String,
    /// Line of the row, from 1.
    pub row_line: usize,
    /// What was found.
    #[serde(flatten)]
    pub found: T,
}

/// The report while rows come.
#[derive(Debug)]
pub(super) struct Counts {
    report: CleaningReport,
    funnel: Funnel,
    rejected_by: BTreeMap<String, u64>,
}

impl Counts {
    pub(super) fn new(known_before: usize) -> Self {
        let report = CleaningReport { known_before, ..CleaningReport::default() };
        Self { report, funnel: Funnel::default(), rejected_by: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, checked: &Checked) {
        let (report, entry) = (&mut self.report, &checked.entry);
        report.rows += 1;
        report.masked_rows += u64::from(!checked.masked.is_empty());
        for (kind, count) in &checked.masked {
            *report.masked.entry(kind.name()).or_default() += count;
        }
        let (verdict, reason) = match &checked.rejection {
            None => (Verdict::Accepted, String::new()),
            Some(rejection) => (Verdict::Rejected, rejection.reason(entry)),
        };
        let row = Row { leaf: entry.leaf().to_owned(), verdict, reason, ..Row::default() };
        report.kept += u64::from(verdict == Verdict::Accepted);
        match &checked.rejection {
            None => {}
            Some(Rejection::Before) => report.rejected_before += 1,
            Some(rejection) => {
                *self.rejected_by.entry(row.reason_category().to_owned()).or_default() += 1;
                report.list(entry, rejection);
            }
        }
        self.funnel.add(&row);
    }

    pub(super) fn finish(self) -> CleaningReport {
        let mut rejected_by: Vec<(String, u64)> = self.rejected_by.into_iter().collect();
        // Sorted by name already, and the sort keeps the order of equals.
        rejected_by.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        CleaningReport { rejected_by, leaves: self.funnel.lines(), ..self.report }
    }
}

impl CleaningReport {
    fn list(&mut self, entry: &Entry, rejection: &Rejection) {
        match rejection {
            Rejection::Contaminated(hit) => {
                *self.contaminated_by.entry(hit.benchmark.clone()).or_default() += 1;
                listed(&mut self.contamination, entry, &**hit);
            }
            Rejection::AlikeItem(alike) => {
                *self.contaminated_by.entry(alike.benchmark.clone()).or_default() += 1;
                listed(&mut self.contamination_by_meaning, entry, &**alike);
            }
            Rejection::Duplicate(duplicate) => listed(&mut self.near_duplicates, entry, duplicate),
            Rejection::SameMeaning(same) => listed(&mut self.same_meaning, entry, same),
            Rejection::Before | Rejection::Unreadable(_) | Rejection::Rule(_) => {}
        }
    }
}

fn listed<T: Clone>(list: &mut Vec<Found<T>>, entry: &Entry, found: &T) {
    if list.len() < LISTED {
        list.push(Found { id: entry.id().to_owned(), row_line: entry.line(), found: found.clone() });
    }
}
