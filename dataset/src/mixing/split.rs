//! Rows that are kept for evaluation, drawn so that none of them shares a text with a row that is trained on.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::draw;
use crate::duplicates::normalized;
use crate::error::DatasetError;
use crate::formats::Problem;
use crate::row::{Row, Split};
use crate::table::RowWriter;
use crate::versions::RowSource;

/// What rows on different sides may not share. Each also keeps apart rows that share a chunk or ask the same question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// A chunk.
    Chunk,
    /// A document.
    #[default]
    Document,
    /// A seed example. Rows whose prompts drew from the same few seeds all hang together then.
    Seed,
}

/// What a split became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SplitSummary {
    /// Rows to train on.
    pub train: u64,
    /// Rows kept for evaluation.
    pub held_out: u64,
    /// Groups of rows that hang together.
    pub groups: u64,
    /// The largest of them.
    pub largest_group: u64,
}

/// Writes a table with the rows of `source`, of which about `share` is held out, atomically. Whole groups are drawn by the
/// seed until the next would be too much. What is held are hashes, three a row.
///
/// # Errors
/// When rows cannot be read or written, and when they hang together so that nothing can be held out.
pub fn split(source: &RowSource, by: SplitBy, share: f64, seed: u64, out: &Path) -> Result<SplitSummary, DatasetError> {
    let refuse = |what: String| DatasetError::Problem(Problem { path: out.to_path_buf(), line: None, what });
    if !(share > 0.0 && share < 1.0) {
        return Err(refuse(format!("a share of {share} cannot be held out; it lies between 0 and 1")));
    }
    let mut groups = Groups::default();
    for row in source.rows() {
        groups.add(&keys(&row?, by));
    }
    let held_out = groups.draw(share, seed);
    let mut summary = SplitSummary {
        groups: held_out.len() as u64,
        largest_group: groups.sizes().into_values().max().unwrap_or_default(),
        ..SplitSummary::default()
    };
    if !held_out.values().any(|&held_out| held_out) {
        return Err(refuse(format!(
            "nothing can be held out: of the {} groups of rows that hang together, even the smallest is more than the share of \
             {share}; hold out more, let less hang together (chunks), or generate from more documents",
            summary.groups
        )));
    }
    let mut writer = RowWriter::create(out)?;
    for row in source.rows() {
        let row = row?;
        let root = groups.find(&keys(&row, by));
        let split =
            if root.and_then(|root| held_out.get(&root)) == Some(&true) { Split::HeldOut } else { Split::Train };
        match split {
            Split::HeldOut => summary.held_out += 1,
            Split::Train => summary.train += 1,
        }
        writer.write(Row { split, ..row })?;
    }
    writer.finish()?;
    Ok(summary)
}

/// What holds a row together with others, hashed. A chunk is known by its text too, as a flow may not give its hash.
fn keys(row: &Row, by: SplitBy) -> Vec<u64> {
    let key = |parts: &[&[u8]]| draw::draw_key(0, parts);
    let mut keys = Vec::new();
    keys.extend(row.chunk_hash.as_ref().map(|hash| key(&[b"chunk hash", hash.as_bytes()])));
    keys.extend(row.chunk.as_ref().map(|text| key(&[b"chunk", normalized(text).as_bytes()])));
    if matches!(by, SplitBy::Document | SplitBy::Seed) {
        keys.extend(row.document.as_ref().map(|name| key(&[b"document", row.leaf.as_bytes(), name.as_bytes()])));
    }
    if by == SplitBy::Seed {
        keys.extend(row.seed_ids.iter().map(|seed| key(&[b"seed", row.leaf.as_bytes(), seed.as_bytes()])));
    }
    let question = row.question().map(normalized).unwrap_or_default();
    keys.push(key(&[b"question", row.leaf.as_bytes(), question.as_bytes()]));
    keys
}

/// Sets of keys that some row has together (union by size, with path halving).
#[derive(Default)]
struct Groups {
    places: HashMap<u64, u32>,
    parents: Vec<u32>,
    /// The smallest key of a set names it, whatever the order of the rows.
    names: Vec<u64>,
    rows: Vec<u64>,
}

impl Groups {
    fn add(&mut self, keys: &[u64]) {
        let places: Vec<u32> = keys.iter().map(|&key| self.place(key)).collect();
        let Some((&first, others)) = places.split_first() else { return };
        let mut root = self.root(first);
        for &other in others {
            let other = self.root(other);
            root = self.join(root, other);
        }
        self.rows[root as usize] += 1;
    }

    fn place(&mut self, key: u64) -> u32 {
        *self.places.entry(key).or_insert_with(|| {
            self.parents.push(self.parents.len() as u32);
            self.names.push(key);
            self.rows.push(0);
            self.parents.len() as u32 - 1
        })
    }

    fn root(&mut self, mut place: u32) -> u32 {
        while self.parents[place as usize] != place {
            let above = self.parents[self.parents[place as usize] as usize];
            self.parents[place as usize] = above;
            place = above;
        }
        place
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        if a == b {
            return a;
        }
        let (large, small) = if self.rows[a as usize] >= self.rows[b as usize] { (a, b) } else { (b, a) };
        self.parents[small as usize] = large;
        self.rows[large as usize] += self.rows[small as usize];
        self.names[large as usize] = self.names[large as usize].min(self.names[small as usize]);
        large
    }

    /// The name of the set that a row of these keys is in.
    fn find(&mut self, keys: &[u64]) -> Option<u64> {
        let place = *self.places.get(keys.first()?)?;
        let root = self.root(place);
        Some(self.names[root as usize])
    }

    /// Rows of each set, by its name.
    fn sizes(&self) -> HashMap<u64, u64> {
        let roots = (0..self.parents.len()).filter(|&at| self.parents[at] as usize == at);
        roots.map(|root| (self.names[root], self.rows[root])).collect()
    }

    /// Whether each set is held out: in an order that the seed draws, while it fits.
    fn draw(&self, share: f64, seed: u64) -> HashMap<u64, bool> {
        let sizes = self.sizes();
        let most = sizes.values().sum::<u64>() as f64 * share;
        let mut order: Vec<(u64, u64)> =
            sizes.keys().map(|&name| (draw::draw_key(seed, &[b"split", &name.to_le_bytes()]), name)).collect();
        order.sort_unstable();
        let mut taken = 0;
        let choose = |(_, name): (u64, u64)| {
            let fits = (taken + sizes[&name]) as f64 <= most;
            taken += if fits { sizes[&name] } else { 0 };
            (name, fits)
        };
        order.into_iter().map(choose).collect()
    }
}
