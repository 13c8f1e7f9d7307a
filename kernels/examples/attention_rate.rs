//! Times attention forward and backward, f32 and bf16 in turn: `attention_rate [LENGTH [SEQUENCES [HEADS KV_HEADS DIM]]]`.
use std::time::Instant;

use espalier_kernels::ops::{AttentionShape, segmented_attention, segmented_attention_backward};
use espalier_kernels::{Element, bf16};

fn noise<T: Element>(seed: u32, count: usize) -> Vec<T> {
    let value =
        |i: u32| ((i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) >> 8 & 0xffff) as f32 / 32768.0 - 1.0;
    (0..count as u32).map(|i| T::round(value(i))).collect()
}

fn rates<T: Element>(shape: &AttentionShape, segments: &[usize]) -> [f64; 2] {
    let rows: usize = segments.iter().sum();
    let (query, key) = (rows * shape.heads * shape.head_dim, rows * shape.kv_heads * shape.head_dim);
    let (q, k, v, dout) = (noise::<T>(1, query), noise::<T>(2, key), noise::<T>(3, key), noise::<T>(4, query));
    let (mut out, mut lse) = (vec![T::round(0.0); query], vec![0.0; rows * shape.heads]);
    let (mut dq, mut dk, mut dv) = (out.clone(), k.clone(), v.clone());
    let mut best = [f64::INFINITY; 2];
    rayon::scope(|_| {
        for _ in 0..20 {
            let start = Instant::now();
            segmented_attention(shape, &q, &k, &v, segments, &mut out, &mut lse);
            best[0] = best[0].min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            segmented_attention_backward(shape, &q, &k, &v, &out, &lse, &dout, segments, &mut dq, &mut dk, &mut dv);
            best[1] = best[1].min(start.elapsed().as_secs_f64());
        }
    });
    best
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
    let (length, sequences) = (number(0, 500), number(1, 4));
    let (heads, kv_heads, head_dim) = (number(2, 9), number(3, 3), number(4, 64));
    let scale = (head_dim as f32).sqrt().recip();
    let shape = AttentionShape { heads, kv_heads, head_dim, scale, window: None };
    let segments = vec![length; sequences];
    let operations = (2 * length * (length + 1) / 2 * sequences * heads * head_dim) as f64;
    for _ in 0..3 {
        for (name, best) in [("f32", rates::<f32>(&shape, &segments)), ("bf16", rates::<bf16>(&shape, &segments))] {
            println!(
                "{name:>5}: forward {:.3} ms ({:.0} GFLOP/s), backward {:.3} ms ({:.0} GFLOP/s)",
                1e3 * best[0],
                2.0 * operations / best[0] / 1e9,
                1e3 * best[1],
                5.0 * operations / best[1] / 1e9
            );
        }
    }
}
