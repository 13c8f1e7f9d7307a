//! How many rows came out of how many, and why the others did not.

use std::collections::BTreeMap;

use polars::prelude::{Column, DataFrame};
use serde::{Deserialize, Serialize};

use crate::error::DatasetError;
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

/// Counts rows by leaf, verdict and category of reason; leaves sorted by id.
///
/// # Errors
/// When the table of counts cannot be made (more than 2^32 rows).
pub fn funnel(rows: &[Row]) -> Result<Vec<FunnelLine>, DatasetError> {
    let table = DataFrame::new_infer_height(vec![
        Column::new("leaf".into(), rows.iter().map(|row| row.leaf.as_str()).collect::<Vec<_>>()),
        Column::new("accepted".into(), rows.iter().map(|row| row.verdict == Verdict::Accepted).collect::<Vec<_>>()),
        Column::new("category".into(), rows.iter().map(category).collect::<Vec<_>>()),
    ])?;
    let groups = table.group_by(["leaf", "accepted", "category"])?;
    let keys = DataFrame::new_infer_height(groups.keys())?;
    let counts = groups.get_groups().group_count();
    let (leaf, accepted) = (keys.column("leaf")?.str()?, keys.column("accepted")?.bool()?);
    let category = keys.column("category")?.str()?;
    let mut lines: BTreeMap<&str, FunnelLine> = BTreeMap::new();
    for index in 0..keys.height() {
        let (Some(leaf), Some(count)) = (leaf.get(index), counts.get(index).map(u64::from)) else { continue };
        let line = lines.entry(leaf).or_insert_with(|| FunnelLine { leaf: leaf.to_owned(), ..FunnelLine::default() });
        line.generated += count;
        if accepted.get(index) == Some(true) {
            line.accepted += count;
        } else {
            line.rejected_by.push((category.get(index).unwrap_or_default().to_owned(), count));
        }
    }
    // Groups come in no order: the sort gives one.
    Ok(lines
        .into_values()
        .map(|mut line| {
            line.rejected_by.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            line
        })
        .collect())
}

/// Accepted rows are one group, whatever they passed.
fn category(row: &Row) -> &str {
    match row.verdict {
        Verdict::Accepted => "",
        Verdict::Rejected => row.reason_category(),
    }
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
        let lines = funnel(&rows).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].leaf.as_str(), lines[0].generated, lines[0].accepted), ("a", 1, 0));
        assert_eq!((lines[1].leaf.as_str(), lines[1].generated, lines[1].accepted), ("b", 5, 2));
        assert_eq!(lines[1].rejected_by, [("wrong answer".to_owned(), 2), ("empty".to_owned(), 1)]);
        assert_eq!(funnel(&[]).unwrap(), []);
    }
}
