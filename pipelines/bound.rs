//! What limits a run: the arithmetic of its weight products, or reading the weights, at the rates of this very machine.

use espalier_kernels::{
    Accumulate, BlockRows, BlockType, Int8Matrix, Int8Rows, PackedMatrix, Precision, StoredMatrix, Values, matmul,
    matmul_int8,
};
use espalier_model::ModelConfig;
use rayon::prelude::*;
use std::sync::Arc;
use std::time::Instant;

/// Rates that this machine reached a moment ago, on all threads.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Operations a second of our own matrix product on operands that stay in the caches.
    pub operations_per_second: f64,
    /// Bytes a second read in order from memory.
    pub bytes_per_second: f64,
}

impl Rates {
    /// Measures both, in about a fifth of a second. Uses 256 MB: take `peak_bytes` before.
    pub fn measure(precision: Precision) -> Self {
        Self { operations_per_second: product_rate(precision), bytes_per_second: read_rate() }
    }

    /// [`Self::measure`] with products of 8 bits.
    pub fn measure_int8() -> Self {
        Self { operations_per_second: int8_product_rate(), bytes_per_second: read_rate() }
    }
}

/// The shortest time that the weight products of some work can take.
///
/// Attention, norms, sampling and the optimizer are not in it: work whose time is far above its bound spends it there, or in
/// waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// `arithmetic` or `memory`: whichever takes longer.
    pub name: &'static str,
    /// That time.
    pub seconds: f64,
}

impl Bound {
    /// The bound of `operations` and of `bytes` read.
    pub fn of(operations: f64, bytes: f64, rates: Rates) -> Self {
        let arithmetic = operations / rates.operations_per_second;
        let memory = bytes / rates.bytes_per_second;
        if arithmetic >= memory {
            Self { name: "arithmetic", seconds: arithmetic }
        } else {
            Self { name: "memory", seconds: memory }
        }
    }

    /// Adds the keys `bound`, `bound_seconds` and `bound_share` (1 when the work took no longer than its bound) to a result.
    pub fn write(self, seconds: f64, result: &mut serde_json::Value) {
        result["bound"] = self.name.into();
        result["bound_seconds"] = self.seconds.into();
        result["bound_share"] = (self.seconds / seconds.max(1e-12)).into();
    }
}

/// Weights of the blocks' linear layers, and of the head.
pub fn matmul_weights(config: &ModelConfig) -> (usize, usize) {
    let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let block: usize = parts
        .iter()
        .filter_map(|part| config.linear_shape(&format!("blk.0.{part}")))
        .map(|(inputs, outputs)| inputs * outputs)
        .sum();
    (block * config.layers, config.hidden * config.vocabulary)
}

/// Operations a second of our own matrix product on operands that stay in the caches, measured in a tenth of a second.
pub fn product_rate(precision: Precision) -> f64 {
    let (m, k, n) = (512, 576, 1536);
    let packed = PackedMatrix::pack(precision, n, k, &|_, row| row.fill(0.5));
    let (x, mut y) = (vec![0.25; m * k], vec![0.0; m * n]);
    2.0 * (m * k * n) as f64 / best(0.1, || matmul(&x, m, &packed, &mut y, Accumulate::Overwrite))
}

/// [`product_rate`] of bytes with scales and minima, as the blocks of `Q4_1` and `Q4_K` give them.
fn int8_product_rate() -> f64 {
    let (m, k, n) = (512, 576, 1536);
    let block_type = BlockType::Q4_1;
    let bytes = vec![0x11_u8; n * block_type.row_bytes(k).unwrap_or(0)];
    let range = 0..bytes.len();
    let Ok(blocks) = BlockRows::new(block_type, k, Arc::new(bytes), range) else { return f64::NAN };
    let packed = Int8Matrix::pack(&StoredMatrix::new(Precision::Bf16, vec![blocks]));
    let (x, mut y) = (vec![0.25; m * k], vec![0.0; m * n]);
    let mut rounded = Int8Rows::default();
    rounded.quantize(Values::F32(&x), m, k);
    2.0 * (m * k * n) as f64 / best(0.1, || matmul_int8(&rounded, &packed, &mut y, Accumulate::Overwrite))
}

fn read_rate() -> f64 {
    // Larger than the caches of the machines that this runs on.
    let words = vec![1_u64; 32 << 20];
    let seconds = best(0.1, || {
        let sum: u64 = words.par_chunks(1 << 16).map(|part| part.iter().sum::<u64>()).sum();
        std::hint::black_box(sum);
    });
    (words.len() * size_of::<u64>()) as f64 / seconds
}

/// The shortest of several calls, three at least, within about so many seconds.
pub fn best(seconds: f64, mut call: impl FnMut() + Send) -> f64 {
    let mut best = f64::INFINITY;
    // Calls from a pool's own thread, as the engine and the trainer make them.
    rayon::scope(|_| {
        let begun = Instant::now();
        let mut calls = 0;
        while calls < 3 || begun.elapsed().as_secs_f64() < seconds {
            let start = Instant::now();
            call();
            best = best.min(start.elapsed().as_secs_f64());
            calls += 1;
        }
    });
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_both_bounds_wins() {
        let rates = Rates { operations_per_second: 100.0, bytes_per_second: 10.0 };
        assert_eq!(Bound::of(200.0, 10.0, rates), Bound { name: "arithmetic", seconds: 2.0 });
        assert_eq!(Bound::of(200.0, 50.0, rates), Bound { name: "memory", seconds: 5.0 });
        let mut result = serde_json::json!({});
        Bound::of(200.0, 50.0, rates).write(10.0, &mut result);
        assert_eq!(result, serde_json::json!({"bound": "memory", "bound_seconds": 5.0, "bound_share": 0.5}));
    }

    #[test]
    fn rates_are_positive() {
        let rates = Rates::measure(Precision::F32);
        assert!(rates.operations_per_second > 0.0 && rates.bytes_per_second > 0.0);
    }
}
