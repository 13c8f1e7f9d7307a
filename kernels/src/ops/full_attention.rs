//! Attention of an encoder: every token of a text sees all of that text.
//!
//! Texts lie one behind the other; a task is a head of some queries of a text. Scores of a block of queries exist at a time.

use rayon::prelude::*;

use super::attention::AttentionShape;
use super::simd::{Operation, Simd, dispatch, exp};
use crate::InstructionSet;
use crate::gemm::{Accumulate, matmul_nn, matmul_nt};

/// Queries whose scores exist together.
const QUERY_BLOCK: usize = 128;

/// Attends in each text of `lengths` tokens among themselves.
///
/// A row of `qkv` holds the heads of q, of k and of v; `out` gets `heads * head_dim` elements a row. The result of a row has
/// the same bits whatever texts share the call.
///
/// # Panics
///
/// When the lengths do not fit together, heads share keys, or there is a window.
pub fn full_attention(shape: &AttentionShape, qkv: &[f32], lengths: &[usize], out: &mut [f32]) {
    shape.check();
    assert!(shape.heads == shape.kv_heads && shape.window.is_none(), "full_attention: one key head a head, no window");
    let (rows, width) = (lengths.iter().sum::<usize>(), shape.query_width());
    assert_eq!(qkv.len(), rows * 3 * width, "full_attention: q, k and v are not the sum of the lengths in rows");
    assert_eq!(out.len(), rows * width, "full_attention: the output is not the sum of the lengths in rows");
    let mut tasks = Vec::new();
    let mut first = 0;
    for &length in lengths {
        let text = &qkv[first * 3 * width..(first + length) * 3 * width];
        tasks.extend((0..shape.heads).map(|head| (text, head)));
        first += length;
    }
    let attend = |buffers: &mut Buffers, (text, head)| buffers.attend(shape, text, head);
    let heads: Vec<Vec<f32>> = tasks.into_par_iter().with_max_len(1).map_init(Buffers::default, attend).collect();
    let mut rows = out.chunks_exact_mut(width);
    for text in heads.chunks_exact(shape.heads) {
        for (at, row) in rows.by_ref().take(text[0].len() / shape.head_dim).enumerate() {
            for (into, head) in row.chunks_exact_mut(shape.head_dim).zip(text) {
                into.copy_from_slice(&head[at * shape.head_dim..][..shape.head_dim]);
            }
        }
    }
}

/// Working memory of a thread.
#[derive(Default)]
struct Buffers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
}

impl Buffers {
    /// What one head attends to in a text, row by row.
    fn attend(&mut self, shape: &AttentionShape, qkv: &[f32], head: usize) -> Vec<f32> {
        let (d, width) = (shape.head_dim, shape.query_width());
        let length = qkv.len() / (3 * width);
        for (part, buffer) in [&mut self.q, &mut self.k, &mut self.v].into_iter().enumerate() {
            buffer.clear();
            for row in qkv.chunks_exact(3 * width) {
                buffer.extend_from_slice(&row[part * width + head * d..][..d]);
            }
        }
        let mut out = vec![0.0; length * d];
        for (q, out) in self.q.chunks(QUERY_BLOCK * d).zip(out.chunks_mut(QUERY_BLOCK * d)) {
            let queries = q.len() / d;
            self.scores.resize(queries * length, 0.0);
            matmul_nt(q, &self.k, queries, length, d, shape.scale, &mut self.scores, Accumulate::Overwrite);
            dispatch(InstructionSet::detect(), Softmax { rows: &mut self.scores, length });
            matmul_nn(&self.scores, &self.v, queries, d, length, 1.0, out, Accumulate::Overwrite);
        }
        out
    }
}

/// `e^(x - max) / sum` of each row.
struct Softmax<'a> {
    rows: &'a mut [f32],
    length: usize,
}

impl Operation for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.rows.chunks_exact_mut(self.length) {
            let mut most = simd.splat(f32::NEG_INFINITY);
            for x in row.chunks(S::WIDTH) {
                most = simd.max(most, if x.len() < S::WIDTH { simd.load_short(x, x[0]) } else { simd.load(x) });
            }
            let most = simd.splat(simd.maximum(most));
            let mut sum = simd.splat(0.0);
            for x in row.chunks_mut(S::WIDTH) {
                let power = exp(simd, simd.sub(simd.read_short(x), most));
                simd.write_short(x, power);
                sum = simd.add(sum, simd.select_first(x.len(), power, simd.splat(0.0)));
            }
            let factor = simd.splat(1.0 / simd.sum(sum));
            for x in row.chunks_mut(S::WIDTH) {
                simd.write_short(x, simd.mul(simd.read_short(x), factor));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, noise, with_threads};

    fn shape(heads: usize, head_dim: usize) -> AttentionShape {
        AttentionShape { heads, kv_heads: heads, head_dim, scale: 0.4, window: None }
    }

    /// The formula, in f64.
    fn plain(shape: &AttentionShape, qkv: &[f32]) -> Vec<f64> {
        let (d, width) = (shape.head_dim, shape.query_width());
        let rows: Vec<&[f32]> = qkv.chunks(3 * width).collect();
        let mut out = vec![0.0; rows.len() * width];
        for (at, row) in rows.iter().enumerate() {
            for head in 0..shape.heads {
                let part = |row: &[f32], part: usize| -> Vec<f64> {
                    row[part * width + head * d..][..d].iter().map(|x| f64::from(*x)).collect()
                };
                let q = part(row, 0);
                let score = |row: &[f32]| {
                    let dot: f64 = q.iter().zip(part(row, 1)).map(|(q, k)| q * k).sum();
                    (dot * f64::from(shape.scale)).exp()
                };
                let powers: Vec<f64> = rows.iter().map(|row| score(row)).collect();
                let sum: f64 = powers.iter().sum();
                for i in 0..d {
                    let value: f64 = rows.iter().zip(&powers).map(|(row, power)| power * part(row, 2)[i]).sum();
                    out[at * width + head * d + i] = value / sum;
                }
            }
        }
        out
    }

    #[test]
    fn texts_attend_to_themselves_alone_and_alike_in_any_company() {
        let shape = shape(3, 20);
        let lengths = [1, 150, 17, 300];
        let width = 3 * shape.query_width();
        let qkv = noise(9, lengths.iter().sum::<usize>() * width);
        let run = |qkv: &[f32], lengths: &[usize], threads| {
            with_threads(threads, || {
                let mut out = vec![0.0; qkv.len() / 3];
                full_attention(&shape, qkv, lengths, &mut out);
                out
            })
        };
        let together = run(&qkv, &lengths, 2);
        let (mut first, mut alone) = (0, Vec::new());
        for length in lengths {
            let part = &qkv[first * width..(first + length) * width];
            assert_close(&run(part, &[length], 1), &plain(&shape, part), 1e-5, "a text");
            alone.extend(run(part, &[length], 1));
            first += length;
        }
        assert!(together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
