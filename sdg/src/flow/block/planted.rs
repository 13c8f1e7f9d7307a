//! Rows of known quality for a judge's calibration, in the columns of its block.

use espalier_taxonomy::{Leaf, Seed};
use serde_json::{Map, Value};

use crate::flow::sample::{Origin, Sample};
use crate::planted::{Plant, Spoil, planted};

/// Good rows of a calibration at most; each has a bad one beside it.
const MOST: usize = 12;

/// The columns that planted rows have beside those of [`PlantedColumns`]: what a leaf says of itself.
pub(crate) const LEAF_COLUMNS: [&str; 4] = ["task_description", "domain", "document_outline", "leaf_node_path"];

/// The columns in which a block finds question, answer, and the text that they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlantedColumns {
    pub(crate) question: String,
    pub(crate) answer: String,
    pub(crate) context: Option<String>,
    /// What is spoiled in bad rows.
    pub(crate) spoil: Spoil,
}

impl PlantedColumns {
    /// Whether planted rows have a column.
    pub(crate) fn have(&self, column: &str) -> bool {
        let own = [Some(&self.question), Some(&self.answer), self.context.as_ref()];
        own.into_iter().flatten().any(|name| name == column) || LEAF_COLUMNS.contains(&column)
    }
}

/// Seeds of a leaf as they stand and spoiled, as rows. Where a text is shown, seeds without one are left out.
pub(crate) fn planted_samples(
    columns: &PlantedColumns,
    leaf: &Leaf,
    elsewhere: &[&Seed],
    random: u64,
) -> Vec<(Plant, Sample)> {
    let rows = planted(leaf, elsewhere, random, MOST, columns.spoil).into_iter().enumerate();
    let rows = rows.filter(|(_, row)| columns.context.is_none() || row.context.is_some());
    rows.map(|(number, row)| {
        let mut values = Map::new();
        let path = leaf.id.replace('/', "_");
        let texts = [&leaf.task_description, leaf.domain.as_ref().unwrap_or(&EMPTY)];
        let outline = leaf.document_outline.as_ref().unwrap_or(&EMPTY);
        for (name, text) in LEAF_COLUMNS.iter().zip(texts.into_iter().chain([outline, &path])) {
            values.insert((*name).to_owned(), Value::from(text.as_str()));
        }
        values.insert(columns.question.clone(), row.question.into());
        values.insert(columns.answer.clone(), row.answer.into());
        if let (Some(column), Some(context)) = (&columns.context, row.context) {
            values.insert(column.clone(), context.into());
        }
        let name = [b"planted".as_slice(), &(number as u64).to_le_bytes()].concat();
        (row.plant, Sample::new(&leaf.id, &name, values, Origin::default()))
    })
    .collect()
}

static EMPTY: String = String::new();
