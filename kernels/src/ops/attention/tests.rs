//! Attention against double precision, central differences and itself.

#![allow(clippy::float_cmp, reason = "the values are exact")]

use super::*;
use crate::ops::testing::{assert_close, gradient, noise, widen, with_threads};

pub(super) fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), window: None }
}

/// Output and log-sum-exp of one sequence.
pub(super) fn reference(shape: &AttentionShape, q: &[f64], start: usize, k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let d = shape.head_dim;
    let queries = q.len() / shape.query_width();
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![0.0; queries * shape.heads];
    for i in 0..queries {
        for head in 0..shape.heads {
            let q = &q[i * shape.query_width() + head * d..][..d];
            let offset = head / shape.group() * d;
            let first = shape.window.map_or(0, |window| (start + i + 1).saturating_sub(window));
            let scores: Vec<f64> = (first..=start + i)
                .map(|j| {
                    let k = &k[j * shape.key_width() + offset..][..d];
                    f64::from(shape.scale) * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
            lse[i * shape.heads + head] = log_sum;
            for (j, s) in scores.iter().enumerate() {
                let p = (s - log_sum).exp();
                for c in 0..d {
                    out[i * shape.query_width() + head * d + c] += p * v[(first + j) * shape.key_width() + offset + c];
                }
            }
        }
    }
    (out, lse)
}

fn inputs(shape: &AttentionShape, rows: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let q = noise(11, rows * shape.query_width()).into_iter().map(|x| 3.0 * x).collect();
    let k = noise(12, rows * shape.key_width()).into_iter().map(|x| 3.0 * x).collect();
    (q, k, noise(13, rows * shape.key_width()))
}

pub(super) const SHAPES: [(usize, usize, usize); 7] =
    [(9, 3, 64), (4, 4, 8), (14, 2, 64), (2, 1, 20), (3, 3, 128), (8, 1, 80), (1, 1, 13)];

#[test]
fn forward_agrees_with_double_precision_on_every_instruction_set() {
    for (heads, kv_heads, head_dim) in SHAPES {
        let shape = shape(heads, kv_heads, head_dim);
        for rows in [1, 20, 64, 65, 150] {
            let (q, k, v) = inputs(&shape, rows);
            let (truth, lse_truth) = reference(&shape, &widen(&q), 0, &widen(&k), &widen(&v));
            for isa in InstructionSet::available() {
                let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; rows * heads]);
                causal_attention_with(isa, &shape, &q, 0, &k, &v, &mut out, Some(&mut lse));
                let label = format!("{} {shape:?} {rows} rows", isa.name());
                assert_close(&out, &truth, 1e-5, &label);
                assert_close(&lse, &lse_truth, 1e-5, &label);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_how_queries_share_calls() {
    for (heads, kv_heads, head_dim) in SHAPES {
        let shape = shape(heads, kv_heads, head_dim);
        let (q, k, v) = inputs(&shape, 200);
        let (query_width, key_width) = (shape.query_width(), shape.key_width());
        for isa in InstructionSet::available() {
            let (mut whole, mut whole_lse) = (vec![0.0; q.len()], vec![0.0; 200 * heads]);
            causal_attention_with(isa, &shape, &q, 0, &k, &v, &mut whole, Some(&mut whole_lse));
            for cuts in [vec![100], vec![1, 2, 3, 64, 65, 129, 191, 199], (1..200).collect()] {
                let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; 200 * heads]);
                let mut start = 0;
                for end in cuts.into_iter().chain([200]) {
                    causal_attention_with(
                        isa,
                        &shape,
                        &q[start * query_width..end * query_width],
                        start,
                        &k[..end * key_width],
                        &v[..end * key_width],
                        &mut out[start * query_width..end * query_width],
                        Some(&mut lse[start * heads..end * heads]),
                    );
                    start = end;
                }
                assert_eq!(out, whole, "{} {shape:?}", isa.name());
                assert_eq!(lse, whole_lse, "{} {shape:?}", isa.name());
            }
        }
    }
}

#[test]
fn segments_are_sequences_of_their_own() {
    let shape = shape(6, 2, 32);
    let segments = [20, 1, 0, 130, 64, 77];
    let rows: usize = segments.iter().sum();
    let (q, k, v) = inputs(&shape, rows);
    let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; rows * shape.heads]);
    segmented_attention(&shape, &q, &k, &v, &segments, &mut out, &mut lse);
    let mut row = 0;
    for length in segments {
        let queries = row * shape.query_width()..(row + length) * shape.query_width();
        let keys = row * shape.key_width()..(row + length) * shape.key_width();
        let (mut alone, mut alone_lse) = (vec![0.0; queries.len()], vec![0.0; length * shape.heads]);
        let lse_out = Some(alone_lse.as_mut_slice());
        causal_attention(&shape, &q[queries.clone()], 0, &k[keys.clone()], &v[keys], &mut alone, lse_out);
        assert_eq!(alone, out[queries]);
        assert_eq!(alone_lse, lse[row * shape.heads..(row + length) * shape.heads]);
        row += length;
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 16, scale: 50.0, window: None };
    let (q, k, v) = inputs(&shape, 80);
    let (truth, _) = reference(&shape, &widen(&q), 0, &widen(&k), &widen(&v));
    for isa in InstructionSet::available() {
        let mut out = vec![f32::NAN; q.len()];
        causal_attention_with(isa, &shape, &q, 0, &k, &v, &mut out, None);
        // Scores in the thousands leave three digits after the point.
        assert_close(&out, &truth, 5e-3, isa.name());
    }
}

/// The gradients of `sum(out * dout)` for one sequence, by the formulas, in double precision.
pub(super) fn reference_backward(
    shape: &AttentionShape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    dout: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (out, lse) = reference(shape, q, 0, k, v);
    let d = shape.head_dim;
    let scale = f64::from(shape.scale);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for i in 0..q.len() / shape.query_width() {
        for head in 0..shape.heads {
            let qi = i * shape.query_width() + head * d;
            let delta: f64 = (0..d).map(|c| out[qi + c] * dout[qi + c]).sum();
            let first = shape.window.map_or(0, |window| (i + 1).saturating_sub(window));
            for j in first..=i {
                let kj = j * shape.key_width() + head / shape.group() * d;
                let s: f64 = scale * (0..d).map(|c| q[qi + c] * k[kj + c]).sum::<f64>();
                let p = (s - lse[i * shape.heads + head]).exp();
                let dp: f64 = (0..d).map(|c| dout[qi + c] * v[kj + c]).sum();
                let ds = p * (dp - delta);
                for c in 0..d {
                    dv[kj + c] += p * dout[qi + c];
                    dq[qi + c] += scale * ds * k[kj + c];
                    dk[kj + c] += scale * ds * q[qi + c];
                }
            }
        }
    }
    (dq, dk, dv)
}

type Gradients = (Vec<f32>, Vec<f32>, Vec<f32>);

fn backward(
    isa: InstructionSet,
    shape: &AttentionShape,
    (q, k, v): (&[f32], &[f32], &[f32]),
    dout: &[f32],
    segments: &[usize],
) -> Gradients {
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; q.len() / shape.head_dim]);
    segmented_attention_with(isa, shape, q, k, v, segments, &mut out, &mut lse);
    let (mut dq, mut dk, mut dv) = (vec![f32::NAN; q.len()], vec![f32::NAN; k.len()], vec![f32::NAN; v.len()]);
    let forward = Saved { q, k, v, out: &out, lse: &lse };
    segmented_attention_backward_with(isa, shape, forward, dout, segments, &mut dq, &mut dk, &mut dv);
    (dq, dk, dv)
}

#[test]
fn the_backward_formulas_agree_with_central_differences() {
    let shape = shape(4, 2, 8);
    let (q, k, v) = inputs(&shape, 9);
    let dout = widen(&noise(14, q.len()));
    let (qw, kw, vw) = (widen(&q), widen(&k), widen(&v));
    let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
        reference(&shape, q, 0, k, v).0.iter().zip(&dout).map(|(o, g)| o * g).sum()
    };
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let (dq, dk, dv) = reference_backward(&shape, &qw, &kw, &vw, &dout);
    assert_close(&narrow(dq), &gradient(&q, |q| loss(q, &kw, &vw)), 1e-6, "dq");
    assert_close(&narrow(dk), &gradient(&k, |k| loss(&qw, k, &vw)), 1e-6, "dk");
    assert_close(&narrow(dv), &gradient(&v, |v| loss(&qw, &kw, v)), 1e-6, "dv");
}

#[test]
fn backward_agrees_with_double_precision_on_every_instruction_set() {
    for (heads, kv_heads, head_dim) in SHAPES {
        let shape = shape(heads, kv_heads, head_dim);
        for rows in [1, 20, 64, 65, 150] {
            let (q, k, v) = inputs(&shape, rows);
            let dout = noise(15, q.len());
            let truth = reference_backward(&shape, &widen(&q), &widen(&k), &widen(&v), &widen(&dout));
            for isa in InstructionSet::available() {
                let (dq, dk, dv) = backward(isa, &shape, (&q, &k, &v), &dout, &[rows]);
                let label = format!("{} {shape:?} {rows} rows", isa.name());
                if rows > 1 {
                    assert_close(&dq, &truth.0, 1e-5, &format!("dq {label}"));
                    assert_close(&dk, &truth.1, 1e-5, &format!("dk {label}"));
                }
                assert_close(&dv, &truth.2, 1e-5, &format!("dv {label}"));
            }
        }
    }
}

#[test]
fn results_depend_neither_on_threads_nor_on_neighbours() {
    let shape = shape(9, 3, 64);
    let segments = [128, 20, 300, 64];
    let rows: usize = segments.iter().sum();
    let (q, k, v) = inputs(&shape, rows);
    let dout = noise(16, q.len());
    let run = || {
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; rows * shape.heads]);
        segmented_attention(&shape, &q, &k, &v, &segments, &mut out, &mut lse);
        (out, lse, backward(InstructionSet::detect(), &shape, (&q, &k, &v), &dout, &segments))
    };
    let one = with_threads(1, run);
    assert!(one == with_threads(4, run), "threads change bits");
    let queries = 148 * shape.query_width()..448 * shape.query_width();
    let keys = 148 * shape.key_width()..448 * shape.key_width();
    let alone = backward(
        InstructionSet::detect(),
        &shape,
        (&q[queries.clone()], &k[keys.clone()], &v[keys.clone()]),
        &dout[queries.clone()],
        &[300],
    );
    assert!(alone.0 == one.2.0[queries], "neighbours change dq");
    assert!(alone.1 == one.2.1[keys.clone()], "neighbours change dk");
    assert!(alone.2 == one.2.2[keys], "neighbours change dv");
}

/// Windows within a tile, of a tile, across tiles, and longer than the sequence.
const WINDOWS: [usize; 7] = [1, 2, 17, 64, 65, 130, 1000];

#[test]
fn windows_agree_with_double_precision_on_every_instruction_set() {
    for (heads, kv_heads, head_dim) in [(4, 1, 16), (6, 2, 20), (1, 1, 13)] {
        for window in WINDOWS {
            let shape = AttentionShape { window: Some(window), ..shape(heads, kv_heads, head_dim) };
            let rows = 230;
            let (q, k, v) = inputs(&shape, rows);
            let dout = noise(17, q.len());
            let (out_truth, lse_truth) = reference(&shape, &widen(&q), 0, &widen(&k), &widen(&v));
            let truth = reference_backward(&shape, &widen(&q), &widen(&k), &widen(&v), &widen(&dout));
            for isa in InstructionSet::available() {
                let label = format!("{} {shape:?}", isa.name());
                let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; rows * heads]);
                causal_attention_with(isa, &shape, &q, 0, &k, &v, &mut out, Some(&mut lse));
                assert_close(&out, &out_truth, 1e-5, &label);
                assert_close(&lse, &lse_truth, 1e-5, &label);
                let (dq, dk, dv) = backward(isa, &shape, (&q, &k, &v), &dout, &[rows]);
                // A query that sees itself alone has no gradient by its score.
                if window > 1 {
                    assert_close(&dq, &truth.0, 1e-5, &format!("dq {label}"));
                    assert_close(&dk, &truth.1, 1e-5, &format!("dk {label}"));
                }
                assert_close(&dv, &truth.2, 1e-5, &format!("dv {label}"));
            }
        }
    }
}

#[test]
fn the_backward_formulas_of_a_window_agree_with_central_differences() {
    let shape = AttentionShape { window: Some(3), ..shape(4, 2, 8) };
    let (q, k, v) = inputs(&shape, 9);
    let dout = widen(&noise(18, q.len()));
    let (qw, kw, vw) = (widen(&q), widen(&k), widen(&v));
    let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
        reference(&shape, q, 0, k, v).0.iter().zip(&dout).map(|(o, g)| o * g).sum()
    };
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let (dq, dk, dv) = reference_backward(&shape, &qw, &kw, &vw, &dout);
    assert_close(&narrow(dq), &gradient(&q, |q| loss(q, &kw, &vw)), 1e-6, "dq");
    assert_close(&narrow(dk), &gradient(&k, |k| loss(&qw, k, &vw)), 1e-6, "dk");
    assert_close(&narrow(dv), &gradient(&v, |v| loss(&qw, &kw, v)), 1e-6, "dv");
}

#[test]
fn a_window_beyond_the_sequence_changes_no_bit_and_calls_may_be_cut_anywhere() {
    let plain = shape(6, 2, 32);
    let (q, k, v) = inputs(&plain, 200);
    let (query_width, key_width) = (plain.query_width(), plain.key_width());
    for isa in InstructionSet::available() {
        let run = |shape: &AttentionShape, cuts: &[usize]| {
            let mut out = vec![f32::NAN; q.len()];
            let mut start = 0;
            for &end in cuts {
                let rows = start * query_width..end * query_width;
                let keys = &k[..end * key_width];
                let values = &v[..end * key_width];
                causal_attention_with(isa, shape, &q[rows.clone()], start, keys, values, &mut out[rows], None);
                start = end;
            }
            out
        };
        let whole = run(&plain, &[200]);
        assert_eq!(run(&AttentionShape { window: Some(200), ..plain }, &[200]), whole, "{}", isa.name());
        for window in WINDOWS {
            let shape = AttentionShape { window: Some(window), ..plain };
            let cuts: Vec<usize> = (1..=200).collect();
            assert_eq!(run(&shape, &cuts), run(&shape, &[200]), "{} {window}", isa.name());
        }
    }
}
