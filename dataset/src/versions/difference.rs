//! What differs between two states of rows.

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::RowSource;
use crate::error::DatasetError;
use crate::row::Row;

/// A row that is in one state and not so in the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its id.
    pub id: String,
    /// Its leaf.
    pub leaf: String,
    /// The fields that differ; none where the row is in one state only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What differs between two states of rows, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// In the second only, in its order.
    pub added: Vec<Change>,
    /// In the first only, in its order.
    pub removed: Vec<Change>,
    /// In both with other contents, in the order of the second.
    pub changed: Vec<Change>,
    /// How many are the same.
    pub same: u64,
}

/// Compares two states of rows. What is held grows with the number of rows by their ids and hashes alone, and with the rows
/// that changed.
///
/// # Errors
/// When rows cannot be read.
pub fn difference(from: &RowSource, to: &RowSource) -> Result<Difference, DatasetError> {
    let mut before: HashMap<String, [u8; 16]> = HashMap::new();
    for row in from.rows() {
        let row = row?;
        let hash = content(&row);
        before.insert(row.id, hash);
    }
    let mut found = Difference::default();
    let mut changed: HashMap<String, Row> = HashMap::new();
    let mut after = std::collections::HashSet::new();
    for row in to.rows() {
        let row = row?;
        after.insert(row.id.clone());
        match before.get(&row.id) {
            None => found.added.push(Change { id: row.id, leaf: row.leaf, fields: Vec::new() }),
            Some(hash) if *hash == content(&row) => found.same += 1,
            Some(_) => {
                found.changed.push(Change { id: row.id.clone(), leaf: row.leaf.clone(), fields: Vec::new() });
                changed.insert(row.id.clone(), row);
            }
        }
    }
    let mut fields: HashMap<String, Vec<String>> = HashMap::new();
    for row in from.rows() {
        let row = row?;
        if !after.contains(&row.id) {
            found.removed.push(Change { id: row.id, leaf: row.leaf, fields: Vec::new() });
        } else if let Some(other) = changed.get(&row.id) {
            fields.insert(row.id.clone(), differing(&row, other));
        }
    }
    for change in &mut found.changed {
        change.fields = fields.remove(&change.id).unwrap_or_default();
    }
    Ok(found)
}

/// Names of the fields that differ.
fn differing(from: &Row, to: &Row) -> Vec<String> {
    let values = |row: &Row| serde_json::to_value(row).ok().and_then(|value| value.as_object().cloned());
    let (from, to) = (values(from).unwrap_or_default(), values(to).unwrap_or_default());
    to.iter().filter(|(name, value)| from.get(*name) != Some(value)).map(|(name, _)| name.clone()).collect()
}

fn content(row: &Row) -> [u8; 16] {
    let mut start = [0; 16];
    // A row without its JSON (a score that is no number) is told by its words for people.
    let bytes = serde_json::to_vec(row).unwrap_or_else(|_| format!("{row:?}").into_bytes());
    start.copy_from_slice(&Sha256::digest(bytes)[..16]);
    start
}
