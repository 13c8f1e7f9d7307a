//! `pipeline train --show-batch`: the first rows with what is learned of each, and how the first step packs them.

use super::Session;
use anyhow::Result;
use espalier_model::Model;
use espalier_train::memory::MICRO_BATCH_ROWS;
use espalier_train::{Marks, PackedRow, Sequence, Sequences, TrainConfig, first_step, marked_text, stretches};
use serde_json::json;

/// Rows that are shown.
const SHOWN: usize = 4;

/// Prints rows and packing; with `--json` the result object holds them with tokens and weights.
pub fn run(model: &Model, data: &Sequences, config: &TrainConfig, session: Session<'_>) -> Result<()> {
    let marks = if session.color { Marks::Colour } else { Marks::Brackets };
    // As without a limit of memory, under which micro-batches may be smaller.
    let longest = data.rows.iter().map(|row| row.tokens.len()).max().unwrap_or_default();
    let packed = first_step(data, config, MICRO_BATCH_ROWS.max(longest))?;
    let rows = &data.rows[..data.rows.len().min(SHOWN)];
    for row in rows {
        let (learned, tokens) = (row.targets(), row.tokens.len());
        session.reporter.line(format!(
            "{}  {learned} of {tokens} tokens are learned{}",
            data.place(row),
            labels(data, row)
        ));
        session.reporter.line(marked_text(model.tokenizer(), row, marks));
        session.reporter.line("");
    }
    for (number, micro_batch) in packed.iter().enumerate() {
        for line in describe(number, packed.len(), micro_batch) {
            session.reporter.line(line);
        }
    }
    let row = |row: &Sequence| {
        json!({
            "place": data.place(row),
            "id": row.id,
            "source": data.sources[row.source],
            "leaf": row.leaf.map(|leaf| &data.leaves[leaf]),
            "leaf_weight": row.leaf_weight,
            "tokens": row.tokens,
            "weights": row.weights,
            "stretches": stretches(model.tokenizer(), row),
        })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    session.reporter.result(json!({"rows": rows, "first_step": packed}));
    Ok(())
}

fn labels(data: &Sequences, row: &Sequence) -> String {
    let mut words = String::new();
    if data.sources.len() > 1 {
        words += &format!(", of {}", data.sources[row.source]);
    }
    if let Some(leaf) = row.leaf {
        words += &format!(", leaf {}", data.leaves[leaf]);
    }
    if let Some(weight) = row.leaf_weight {
        words += &format!(" of weight {weight}");
    }
    words
}

/// A line a row: where its tokens begin in the micro-batch, and their positions.
fn describe(number: usize, of: usize, micro_batch: &[PackedRow]) -> Vec<String> {
    let sum = |count: fn(&PackedRow) -> usize| micro_batch.iter().map(count).sum::<usize>();
    let which = if of == 1 { String::new() } else { format!(", micro-batch {} of {of}", number + 1) };
    let (tokens, targets) = (sum(|row| row.tokens), sum(|row| row.targets));
    let head =
        format!("step 1{which}: {} rows, {tokens} tokens, {targets} of them predict a learned one", micro_batch.len());
    let line = |row: &PackedRow| {
        let PackedRow { place, first, tokens, targets, .. } = row;
        format!("  from {first:>6}  positions 0 to {:<5} {targets:>5} learned  {place}", tokens - 1)
    };
    std::iter::once(head).chain(micro_batch.iter().map(line)).collect()
}
