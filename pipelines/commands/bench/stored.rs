//! Products on the blocks of a file beside those on packed weights.

use crate::bound::{Bound, Rates};
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_kernels::{
    Accumulate, BlockRows, InstructionSet, PackedMatrix, StoredMatrix, Values, matmul, matmul_stored,
    matmul_stored_transposed,
};
use espalier_quantize::encodable_type;
use espalier_quantize::encode::encode;
use std::sync::Arc;
use std::time::Instant;

/// Inputs and outputs of the weights: layers of small models.
const WEIGHTS: [(usize, usize); 4] = [(576, 1536), (1536, 576), (896, 4864), (4864, 896)];
const ROWS: [usize; 3] = [32, 512, 2048];

/// `pipeline bench gemm --type ...`.
pub fn gemm(type_name: &str, session: Session<'_>) -> Result<Status> {
    let block_type = encodable_type(type_name).map_err(Failure::usage)?;
    let begun = Instant::now();
    let rates = Rates::measure(session.precision);
    let mut rows = Vec::new();
    // A weight whose rows are no whole blocks cannot have this type.
    for (k, n) in WEIGHTS.into_iter().filter(|(k, _)| k.is_multiple_of(block_type.block_size())) {
        let values: Vec<f32> = (0..n * k).map(|i| (i * 31 % 9973 * 17 % 97) as f32 / 97.0 - 0.5).collect();
        let mut bytes = Vec::new();
        encode(block_type, &values, None, &mut bytes)?;
        let range = 0..bytes.len();
        let blocks = BlockRows::new(block_type, k, Arc::new(bytes), range)?;
        let stored = StoredMatrix::new(session.precision, vec![blocks]);
        let (packed, transposed) = (stored.pack(), stored.pack_transposed());
        for m in ROWS {
            for (direction, packed, inputs) in [("forward", &packed, k), ("backward", &transposed, n)] {
                let [packed, blocks] = medians(packed, &stored, direction, m);
                let operations = 2.0 * (m * k * n) as f64;
                let moved = stored.bytes() + size_of::<f32>() * m * (k + n);
                let (rate, share) = (operations / blocks / 1e9, packed / blocks);
                let mut row = serde_json::json!({
                    "m": m, "k": inputs, "n": k + n - inputs, "direction": direction, "gflops": rate, "seconds": blocks,
                    "packed_seconds": packed, "share_of_packed": share,
                });
                Bound::of(operations, moved as f64, rates).write(blocks, &mut row);
                session.reporter.line(format!(
                    "{m:>5} x {inputs:>5} x {:>5}   {direction:8} {rate:>6.0} GFLOP/s, {share:.2} of packed",
                    k + n - inputs
                ));
                rows.push(row);
            }
        }
    }
    session.reporter.result(serde_json::json!({
        "gemm": rows, "type": block_type.name(), "precision": session.precision.to_string(),
        "instruction_set": InstructionSet::detect().name(), "threads": rayon::current_num_threads(),
        "seconds": begun.elapsed().as_secs_f64(),
    }));
    Ok(Status::Done)
}

/// Median seconds of the packed product and of that on blocks, called in turn.
fn medians(packed: &PackedMatrix, stored: &StoredMatrix, direction: &str, m: usize) -> [f64; 2] {
    let x: Vec<f32> = (0..m * packed.columns()).map(|index| (index % 89) as f32 / 89.0 - 0.5).collect();
    let mut y = vec![0.0; m * packed.rows()];
    let mut times = [Vec::new(), Vec::new()];
    // Calls from a pool's own thread, as the trainer makes them; the first round touches every page.
    rayon::scope(|_| {
        let begun = Instant::now();
        while times[0].len() < 8 || (begun.elapsed().as_secs_f64() < 0.5 && times[0].len() < 200) {
            let start = Instant::now();
            matmul(&x, m, packed, &mut y, Accumulate::Overwrite);
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            if direction == "forward" {
                matmul_stored(Values::F32(&x), m, stored, &mut y, Accumulate::Overwrite);
            } else {
                matmul_stored_transposed(Values::F32(&x), m, stored, &mut y, Accumulate::Overwrite);
            }
            times[1].push(start.elapsed().as_secs_f64());
        }
    });
    times.map(|mut times| {
        times.remove(0);
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}
