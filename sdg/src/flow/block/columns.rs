//! Blocks that move values between columns and rows, without a model.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::expressions::Compiled;
use crate::flow::sample::{Passed, Refused, Sample};

/// What is done with columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Columns {
    /// Copies columns: from, to.
    Copy(Vec<(String, String)>),
    /// Renames columns, all at once: from, to.
    Rename(Vec<(String, String)>),
    /// Takes columns away; those that are not there do not matter.
    Drop(Vec<String>),
    /// Joins texts into one.
    Combine { columns: Vec<String>, output: String, separator: String },
    /// One row for each of these columns: its name in `name`, its value in `value`. All rows of the first column come before
    /// those of the second.
    Flatten { columns: Vec<String>, name: String, value: String },
    /// Puts into `output` the column that `choices` names for the text of `by`.
    Select { by: String, choices: BTreeMap<String, String>, output: String },
    /// Adds the entries of the file that the text of `by` names.
    Populate { by: String, entries: BTreeMap<String, Map<String, Value>> },
    /// Puts the value that most rows of a leaf have into all of them; of equally frequent ones the smallest.
    Majority { column: String },
    /// Values of expressions over the columns; each sees those before it.
    Map(Vec<(String, String)>),
}

impl Columns {
    pub(crate) fn apply(&self, block: &str, samples: Vec<Sample>) -> Passed {
        match self {
            Self::Copy(pairs) => {
                Passed::each(samples, block, |sample| pairs.iter().try_for_each(|(from, to)| copy(sample, from, to)))
            }
            Self::Rename(pairs) => Passed::each(samples, block, |sample| rename(sample, pairs)),
            Self::Drop(columns) => Passed::each(samples, block, |sample| {
                drop_columns(sample, columns);
                Ok(())
            }),
            Self::Combine { columns, output, separator } => {
                Passed::each(samples, block, |sample| combine(sample, columns, output, separator))
            }
            Self::Flatten { columns, name, value } => flatten(block, samples, columns, name, value),
            Self::Select { by, choices, output } => Passed::each(samples, block, |sample| {
                let chosen = sample.text(by).ok_or_else(|| Refused::missing(by))?;
                let from = choices.get(chosen).ok_or_else(|| no_choice(by, chosen))?;
                copy(sample, from, output)
            }),
            Self::Populate { by, entries } => Passed::each(samples, block, |sample| {
                let chosen = sample.text(by).ok_or_else(|| Refused::missing(by))?;
                let entries = entries.get(chosen).ok_or_else(|| no_choice(by, chosen))?;
                for (column, value) in entries {
                    sample.put(column, value.clone());
                }
                Ok(())
            }),
            Self::Majority { column } => majority(block, samples, column),
            Self::Map(expressions) => map(block, samples, expressions),
        }
    }
}

fn map(block: &str, samples: Vec<Sample>, expressions: &[(String, String)]) -> Passed {
    let compiled: Vec<_> = expressions.iter().map(|(column, text)| (column, Compiled::new(text))).collect();
    Passed::each(samples, block, |sample| {
        for (column, expression) in &compiled {
            let value = expression.as_ref().map_err(Clone::clone).and_then(|one| one.over(&sample.columns));
            let fails = |reason| Refused::new("expression fails", format!("`{column}`: {reason}"));
            sample.put(column, value.map_err(fails)?);
        }
        Ok(())
    })
}

fn no_choice(by: &str, chosen: &str) -> Refused {
    Refused::new("no choice", format!("`{by}` is {chosen:?}, and the block has nothing for it"))
}

fn copy(sample: &mut Sample, from: &str, to: &str) -> Result<(), Refused> {
    let value = sample.columns.get(from).ok_or_else(|| Refused::missing(from))?.clone();
    let writing = sample.written.get(from).cloned();
    sample.put(to, value);
    if let Some(writing) = writing {
        sample.written.insert(to.to_owned(), writing);
    }
    Ok(())
}

/// New names in the old places.
fn rename(sample: &mut Sample, pairs: &[(String, String)]) -> Result<(), Refused> {
    if let Some((from, _)) = pairs.iter().find(|(from, _)| !sample.columns.contains_key(from)) {
        return Err(Refused::missing(from));
    }
    let new_name = |name: String| pairs.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to.clone());
    sample.columns =
        std::mem::take(&mut sample.columns).into_iter().map(|(name, value)| (new_name(name), value)).collect();
    sample.written = std::mem::take(&mut sample.written).into_iter().map(|(name, how)| (new_name(name), how)).collect();
    Ok(())
}

pub(crate) fn drop_columns(sample: &mut Sample, columns: &[String]) {
    for column in columns {
        sample.take(column);
    }
}

fn combine(sample: &mut Sample, columns: &[String], output: &str, separator: &str) -> Result<(), Refused> {
    let text = |column: &String| {
        let value = sample.columns.get(column).ok_or_else(|| Refused::missing(column))?;
        value.as_str().ok_or_else(|| Refused::new("not a text", format!("`{column}` is {value}")))
    };
    let joined = columns.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(separator);
    let writing = columns.iter().rev().find_map(|column| sample.written.get(column)).cloned();
    sample.put(output, joined.into());
    if let Some(writing) = writing {
        sample.written.insert(output.to_owned(), writing);
    }
    Ok(())
}

fn flatten(block: &str, samples: Vec<Sample>, columns: &[String], name: &str, value: &str) -> Passed {
    let mut passed = Passed::default();
    for (ordinal, column) in columns.iter().enumerate() {
        let rows = samples.iter().map(|sample| sample.child(block, ordinal)).collect();
        let mut rows = Passed::each(rows, block, |row| {
            let (melted, writing) = row.take(column).ok_or_else(|| Refused::missing(column))?;
            drop_columns(row, columns);
            row.put(name, column.as_str().into());
            row.put(value, melted);
            if let Some(writing) = writing {
                row.written.insert(value.to_owned(), writing);
            }
            Ok(())
        });
        passed.kept.append(&mut rows.kept);
        passed.rejected.append(&mut rows.rejected);
    }
    passed
}

fn majority(block: &str, samples: Vec<Sample>, column: &str) -> Passed {
    let mut counts: HashMap<String, (usize, &Value)> = HashMap::new();
    for value in samples.iter().filter_map(|sample| sample.columns.get(column)).filter(|value| !value.is_null()) {
        counts.entry(value.to_string()).or_insert((0, value)).0 += 1;
    }
    let smaller = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.as_str().cmp(&b.as_str()),
    };
    let winner = counts.into_values().max_by(|a, b| a.0.cmp(&b.0).then_with(|| smaller(b.1, a.1)));
    let Some(winner) = winner.map(|(_, value)| value.clone()) else {
        return Passed::each(samples, block, |_| Err(Refused::missing(column)));
    };
    Passed::each(samples, block, |sample| {
        sample.put(column, winner.clone());
        Ok(())
    })
}
