//! How many rows came out of how many, and why the others did not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::row::{Row, Verdict};

/// The yield of one leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunnelLine {
    /// Id of the leaf.
    pub leaf: String,
    /// Rows that were made.
    pub generated: u64,
    /// Rows that passed every check.
    pub accepted: u64,
    /// Categories of rejection with their counts, the most frequent first.
    pub rejected_by: Vec<(String, u64)>,
}

/// Counts rows as they come; what it holds grows with leaves and reasons, not with rows.
#[derive(Clone, Debug, Default)]
pub struct Funnel {
    leaves: BTreeMap<String, Leaf>,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    accepted: u64,
    rejected_by: BTreeMap<String, u64>,
}

impl Funnel {
    /// Counts a row.
    pub fn add(&mut self, row: &Row) {
        if !self.leaves.contains_key(&row.leaf) {
            self.leaves.insert(row.leaf.clone(), Leaf::default());
        }
        let Some(leaf) = self.leaves.get_mut(&row.leaf) else { return };
        match row.verdict {
            Verdict::Accepted => leaf.accepted += 1,
            Verdict::Rejected => match leaf.rejected_by.get_mut(row.reason_category()) {
                Some(count) => *count += 1,
                None => drop(leaf.rejected_by.insert(row.reason_category().to_owned(), 1)),
            },
        }
    }

    /// A line a leaf, sorted by its id.
    pub fn lines(self) -> Vec<FunnelLine> {
        let line = |(leaf, counts): (String, Leaf)| {
            let mut rejected_by: Vec<(String, u64)> = counts.rejected_by.into_iter().collect();
            // Sorted by name already, and the sort keeps the order of equals.
            rejected_by.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let rejected: u64 = rejected_by.iter().map(|(_, count)| count).sum();
            FunnelLine { leaf, generated: counts.accepted + rejected, accepted: counts.accepted, rejected_by }
        };
        self.leaves.into_iter().map(line).collect()
    }
}

/// Counts rows by leaf, verdict and category of reason; leaves sorted by id.
pub fn funnel<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<FunnelLine> {
    let mut funnel = Funnel::default();
    rows.into_iter().for_each(|row| funnel.add(row));
    funnel.lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_leaf_and_reason() {
        let row = |leaf: &str, verdict, reason: &str| Row {
            leaf: leaf.into(),
            verdict,
            reason: reason.into(),
            ..Row::default()
        };
        let rows = [
            row("b", Verdict::Rejected, "wrong answer: 1 is not 2"),
            row("b", Verdict::Rejected, "empty"),
            row("b", Verdict::Rejected, "wrong answer: 3 is not 4"),
            row("b", Verdict::Accepted, "exact"),
            row("b", Verdict::Accepted, "regex"),
            row("a", Verdict::Rejected, "empty"),
        ];
        let lines = funnel(&rows);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].leaf.as_str(), lines[0].generated, lines[0].accepted), ("a", 1, 0));
        assert_eq!((lines[1].leaf.as_str(), lines[1].generated, lines[1].accepted), ("b", 5, 2));
        assert_eq!(lines[1].rejected_by, [("wrong answer".to_owned(), 2), ("empty".to_owned(), 1)]);
        assert_eq!(funnel(&[]), []);
    }
}
