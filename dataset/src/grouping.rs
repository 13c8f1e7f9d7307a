//! Rows counted by whatever stands in their columns: by leaf and reason, by document and flow.
//!
//! Rows come in portions; each becomes a polars frame that is grouped and condensed to one line a group, and the condensed
//! portions are grouped again. So memory grows with the number of groups, not of rows.

use polars::prelude::{Column, DataFrame, GroupsIndicator, NamedFrom, PolarsError, PolarsResult, Series};
use serde::Serialize;

use crate::error::DatasetError;
use crate::row::{Row, Split, Verdict};

/// Rows in memory at a time.
const PORTION: usize = 100_000;

/// Names of the columns of sums; see [`Group`].
const SUMS: [&str; 5] = ["rows", "accepted", "held_out", "prompt_tokens", "answer_tokens"];

/// What rows can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupColumn {
    /// The leaf.
    Leaf,
    /// Kind of the leaf.
    Kind,
    /// The flow.
    Flow,
    /// The block that refused.
    Block,
    /// Why a row was refused, without its details.
    Reason,
    /// Accepted or rejected.
    Verdict,
    /// For training or held out.
    Split,
    /// The document.
    Document,
    /// The model that wrote.
    Model,
    /// The licence of the leaf.
    License,
}

impl GroupColumn {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Leaf,
        Self::Kind,
        Self::Flow,
        Self::Block,
        Self::Reason,
        Self::Verdict,
        Self::Split,
        Self::Document,
        Self::Model,
        Self::License,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Kind => "kind",
            Self::Flow => "flow",
            Self::Block => "block",
            Self::Reason => "reason",
            Self::Verdict => "verdict",
            Self::Split => "split",
            Self::Document => "document",
            Self::Model => "model",
            Self::License => "license",
        }
    }

    /// The column with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    fn of(self, row: &Row) -> &str {
        match self {
            Self::Leaf => &row.leaf,
            Self::Kind => &row.kind,
            Self::Flow => &row.flow,
            Self::Block => &row.block,
            Self::Reason => row.reason_category(),
            Self::Verdict => row.verdict.name(),
            Self::Split => row.split.name(),
            Self::Document => row.document.as_deref().unwrap_or_default(),
            Self::Model => &row.model,
            Self::License => row.license.as_deref().unwrap_or_default(),
        }
    }
}

/// Rows with the same values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The values, in the order of the columns; empty where a row has none.
    pub values: Vec<String>,
    /// Rows.
    pub rows: u64,
    /// Those that were accepted.
    pub accepted: u64,
    /// Those that are held out for evaluation.
    pub held_out: u64,
    /// Tokens that engines read for them.
    pub prompt_tokens: u64,
    /// Tokens that engines wrote for them.
    pub answer_tokens: u64,
}

/// Counts rows by columns: the largest group first, equal ones by their values.
///
/// # Errors
/// A source that cannot be read, or columns that are named twice.
pub fn grouped(
    rows: impl Iterator<Item = Result<Row, DatasetError>>,
    by: &[GroupColumn],
) -> Result<Vec<Group>, DatasetError> {
    let fails = |error: PolarsError| DatasetError::Grouping { reason: error.to_string() };
    let mut condensed: Option<DataFrame> = None;
    let mut portion = Portion::new(by);
    let mut rows = rows.peekable();
    while let Some(row) = rows.next() {
        portion.add(&row?);
        if portion.len() == PORTION || rows.peek().is_none() {
            let frame =
                std::mem::replace(&mut portion, Portion::new(by)).frame().and_then(|frame| condense(&frame, by));
            let frame = frame.map_err(fails)?;
            condensed = Some(match condensed {
                None => frame,
                Some(mut before) => before.vstack_mut(&frame).and_then(|both| condense(both, by)).map_err(fails)?,
            });
        }
    }
    let mut groups = condensed.map(|frame| groups(&frame, by)).transpose().map_err(fails)?.unwrap_or_default();
    groups.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.values.cmp(&b.values)));
    Ok(groups)
}

/// Columns of rows that are being gathered.
struct Portion<'a> {
    by: &'a [GroupColumn],
    values: Vec<Vec<String>>,
    sums: [Vec<u64>; SUMS.len()],
}

impl<'a> Portion<'a> {
    fn new(by: &'a [GroupColumn]) -> Self {
        Self { by, values: vec![Vec::new(); by.len()], sums: Default::default() }
    }

    fn len(&self) -> usize {
        self.sums[0].len()
    }

    fn add(&mut self, row: &Row) {
        for (values, column) in self.values.iter_mut().zip(self.by) {
            values.push(column.of(row).to_owned());
        }
        let figures = [
            1,
            u64::from(row.verdict == Verdict::Accepted),
            u64::from(row.split == Split::HeldOut),
            u64::from(row.prompt_tokens),
            u64::from(row.answer_tokens),
        ];
        for (sums, figure) in self.sums.iter_mut().zip(figures) {
            sums.push(figure);
        }
    }

    fn frame(self) -> PolarsResult<DataFrame> {
        let height = self.len();
        let keys = self.by.iter().zip(self.values).map(|(column, values)| Series::new(column.name().into(), values));
        let sums = SUMS.iter().zip(self.sums).map(|(name, sums)| Series::new((*name).into(), sums));
        DataFrame::new(height, keys.chain(sums).map(Column::from).collect())
    }
}

/// One line for each combination of values, in the order in which they first come.
fn condense(frame: &DataFrame, by: &[GroupColumn]) -> PolarsResult<DataFrame> {
    let names = by.iter().map(|column| column.name());
    let grouped = frame.group_by_stable(names)?;
    let mut columns = grouped.keys();
    for name in SUMS {
        let figures = frame.column(name)?.u64()?;
        let sum = |rows: &mut dyn Iterator<Item = usize>| -> u64 { rows.filter_map(|row| figures.get(row)).sum() };
        let sums: Vec<u64> = grouped
            .get_groups()
            .iter()
            .map(|group| match group {
                GroupsIndicator::Idx((_, rows)) => sum(&mut rows.iter().map(|row| *row as usize)),
                GroupsIndicator::Slice([first, count]) => sum(&mut (first as usize..(first + count) as usize)),
            })
            .collect();
        columns.push(Series::new(name.into(), sums).into());
    }
    DataFrame::new_infer_height(columns)
}

fn groups(frame: &DataFrame, by: &[GroupColumn]) -> PolarsResult<Vec<Group>> {
    let keys = by.iter().map(|column| frame.column(column.name())?.str()).collect::<PolarsResult<Vec<_>>>()?;
    let sums = SUMS.iter().map(|name| frame.column(name)?.u64()).collect::<PolarsResult<Vec<_>>>()?;
    let group = |row: usize| {
        let figure = |sum: usize| sums[sum].get(row).unwrap_or_default();
        Group {
            values: keys.iter().map(|values| values.get(row).unwrap_or_default().to_owned()).collect(),
            rows: figure(0),
            accepted: figure(1),
            held_out: figure(2),
            prompt_tokens: figure(3),
            answer_tokens: figure(4),
        }
    };
    Ok((0..frame.height()).map(group).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Rows of three leaves and four reasons, in a mixed order.
    fn rows(count: u64) -> impl Iterator<Item = Row> {
        (0..count).map(|number| {
            let accepted = number.is_multiple_of(4);
            Row {
                leaf: format!("leaf {}", number * 7 % 3),
                verdict: if accepted { Verdict::Accepted } else { Verdict::Rejected },
                reason: if accepted { String::new() } else { format!("reason {}: because of {number}", number % 4) },
                prompt_tokens: (number % 100) as u32,
                answer_tokens: 3,
                ..Row::default()
            }
        })
    }

    fn plain(count: u64, by: &[GroupColumn]) -> BTreeMap<Vec<String>, [u64; 5]> {
        let mut counts: BTreeMap<Vec<String>, [u64; 5]> = BTreeMap::new();
        for row in rows(count) {
            let values = by.iter().map(|column| column.of(&row).to_owned()).collect();
            let sums = counts.entry(values).or_default();
            sums[0] += 1;
            sums[1] += u64::from(row.verdict == Verdict::Accepted);
            sums[3] += u64::from(row.prompt_tokens);
            sums[4] += u64::from(row.answer_tokens);
        }
        counts
    }

    #[test]
    fn groups_are_those_of_a_plain_count_over_any_number_of_portions() {
        let by = [GroupColumn::Reason, GroupColumn::Leaf];
        for count in [1, 1_000, 2 * PORTION as u64 + 17] {
            let found = grouped(rows(count).map(Ok), &by).unwrap();
            let expected = plain(count, &by);
            assert_eq!(found.len(), expected.len());
            for group in &found {
                let Group { values, rows, accepted, held_out, prompt_tokens, answer_tokens } = group;
                assert_eq!(
                    [*rows, *accepted, *held_out, *prompt_tokens, *answer_tokens],
                    expected[values],
                    "{values:?}"
                );
            }
            assert!(found.is_sorted_by(|a, b| (b.rows, &a.values) <= (a.rows, &b.values)));
        }
        assert_eq!(grouped(std::iter::empty(), &by).unwrap(), []);
    }

    #[test]
    fn names_and_columns_are_one_to_one() {
        for column in GroupColumn::ALL {
            assert_eq!(GroupColumn::from_name(column.name()), Some(column));
        }
        assert_eq!(GroupColumn::from_name("turns"), None);
        assert!(grouped(rows(3).map(Ok), &[GroupColumn::Leaf, GroupColumn::Leaf]).is_err());
    }
}
