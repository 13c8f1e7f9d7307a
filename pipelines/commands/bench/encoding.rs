//! Rates of the block encoders, in memory: what a quantization costs without its files.

use crate::bound::{Bound, Rates, best};
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_kernels::{BlockType, InstructionSet};
use espalier_quantize::encodable_type;
use espalier_quantize::encode::{ENCODABLE, EncodeError, encode_into, refine, weighs_importance};
use std::time::Instant;

/// Inputs and outputs of the matrix: larger than the caches of common machines as f32 (36 MB), rows of whole blocks of every type.
const COLUMNS: usize = 1536;
const ROWS: usize = 6144;

/// `pipeline bench quantize`: every type that is written, or those asked for.
pub fn rates(types: &[String], session: Session<'_>) -> Result<Status> {
    let chosen: Vec<BlockType> = if types.is_empty() {
        ENCODABLE.to_vec()
    } else {
        types.iter().map(|name| encodable_type(name).map_err(Failure::usage)).collect::<Result<_, _>>()?
    };
    let begun = Instant::now();
    let rates = Rates::measure(session.precision);
    let values = weights();
    let importance: Vec<f32> = (0..COLUMNS).map(|column| 0.1 + (column * 31 % 97) as f32 / 97.0).collect();
    let mut found = Vec::new();
    for block_type in chosen {
        let mut blocks = vec![0; values.len() / block_type.block_size() * block_type.block_bytes()];
        let bytes = (size_of_val(values.as_slice()) + blocks.len()) as f64;
        let plain = seconds(|| encode_into(block_type, &values, None, &mut blocks))?;
        let mut row =
            serde_json::json!({"type": block_type.name(), "seconds": plain, "bytes_per_second": bytes / plain});
        // How much arithmetic a type takes is its own matter: reading and writing is what all have in common.
        Bound::of(0.0, bytes, rates).write(plain, &mut row);
        let mut words = format!("{:<8} {:>6.2} GB/s", block_type.name(), bytes / plain / 1e9);
        if weighs_importance(block_type) {
            let weighed = seconds(|| encode_into(block_type, &values, Some(&importance), &mut blocks))?;
            // The search goes on from the blocks at hand, so that only its first pass is what a file takes.
            let refining = Instant::now();
            refine(block_type, &values, Some(&importance), &mut blocks)?;
            let refined = weighed + refining.elapsed().as_secs_f64();
            row["seconds_with_importance"] = weighed.into();
            row["seconds_refined"] = refined.into();
            words +=
                &format!(", with importance {:>6.2}, refined {:>6.2}", bytes / weighed / 1e9, bytes / refined / 1e9);
        }
        session.reporter.line(words);
        found.push(row);
    }
    session.reporter.result(serde_json::json!({
        "quantize": found, "rows": ROWS, "columns": COLUMNS, "instruction_set": InstructionSet::detect().name(),
        "threads": rayon::current_num_threads(), "seconds": begun.elapsed().as_secs_f64(),
    }));
    Ok(Status::Done)
}

/// Values spread as those of a trained layer are: a bell about zero, whose width changes from row to row.
fn weights() -> Vec<f32> {
    // Knuth's linear congruential generator, whose upper bits are even draws.
    let mut state = 7_u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    let mut values = Vec::with_capacity(ROWS * COLUMNS);
    for row in 0..ROWS {
        let width = 0.02 * (1.0 + (row % 7) as f32 / 7.0);
        // The sum of four even draws has a bell's shape and no far tails.
        values.extend((0..COLUMNS).map(|_| width * (0..4).map(|_| draw()).sum::<f32>()));
    }
    values
}

/// The shortest of three calls: other programs only ever add to a time.
fn seconds(mut encode: impl FnMut() -> Result<(), EncodeError> + Send) -> Result<f64, EncodeError> {
    let mut outcome = Ok(());
    let seconds = best(0.0, || outcome = encode());
    outcome.map(|()| seconds)
}
