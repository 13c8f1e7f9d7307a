//! Attention of bf16 against double precision, against the f32 path, and against itself.

use super::super::tests::{SHAPES, reference, reference_backward, shape};
use super::super::{segmented_attention, segmented_attention_backward};
use super::*;
use crate::ops::testing::{noise, widen, with_threads};
use crate::values::Element;

fn rounded(seed: u64, length: usize, factor: f32) -> Vec<bf16> {
    noise(seed, length).into_iter().map(|x| <bf16 as Element>::round(factor * x)).collect()
}

fn wide(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.widen()).collect()
}

/// q, k, v and the gradient of the output.
fn inputs(shape: &AttentionShape, rows: usize) -> [Vec<bf16>; 4] {
    let (query, key) = (rows * shape.query_width(), rows * shape.key_width());
    [rounded(11, query, 3.0), rounded(12, key, 3.0), rounded(13, key, 1.0), rounded(14, query, 1.0)]
}

#[derive(Debug, PartialEq)]
struct Results {
    out: Vec<bf16>,
    lse: Vec<f32>,
    gradients: [Vec<bf16>; 3],
}

fn compute(machine: Machine, shape: &AttentionShape, [q, k, v, dout]: [&[bf16]; 4], segments: &[usize]) -> Results {
    let nan = bf16::NAN;
    let (mut out, mut lse) = (vec![nan; q.len()], vec![f32::NAN; q.len() / shape.head_dim]);
    forward(machine, shape, [q, k, v], segments, &mut out, &mut lse);
    let mut gradients = [q, k, v].map(|values| vec![nan; values.len()]);
    let saved = Saved { q, k, v, out: &out, lse: &lse };
    backward(machine, shape, saved, dout, segments, gradients.each_mut().map(|values| &mut **values));
    Results { out, lse, gradients }
}

/// Every instruction set of this CPU, `VDPBF16PS` also where it is slow, and the model of AMX.
fn machines() -> Vec<(&'static str, Machine)> {
    let available = InstructionSet::available().into_iter().map(|isa| (isa.name(), Machine::of(isa)));
    #[cfg(target_arch = "x86_64")]
    let others = {
        let machine = |kernels| Machine { isa: InstructionSet::detect(), kernels };
        let pairs = TileKernels::bf16_pairs().map(|kernels| ("VDPBF16PS", machine(kernels)));
        pairs.into_iter().chain([("amx model", machine(TileKernels::amx_model()))])
    };
    #[cfg(not(target_arch = "x86_64"))]
    let others = [];
    available.chain(others).collect()
}

/// The norm of the difference over the norm of the truth.
fn distance(values: &[f32], truth: &[f64]) -> f64 {
    let difference: f64 = values.iter().zip(truth).map(|(value, truth)| (f64::from(*value) - truth).powi(2)).sum();
    (difference / truth.iter().map(|truth| truth * truth).sum::<f64>().max(1e-30)).sqrt()
}

/// bf16 has eight bits: one rounding of random values is off by 0.17 % of their norm, and up to three add up here.
const TOLERANCE: f64 = 0.004;

#[track_caller]
fn check(shape: &AttentionShape, rows: usize) {
    let values = inputs(shape, rows);
    let [q, k, v, dout] = values.each_ref().map(|values| widen(&wide(values)));
    let (out, lse) = reference(shape, &q, 0, &k, &v);
    let (dq, dk, dv) = reference_backward(shape, &q, &k, &v, &dout);
    for (name, machine) in machines() {
        let label = format!("{name} {shape:?} {rows} rows");
        let results = compute(machine, shape, values.each_ref().map(|values| &**values), &[rows]);
        assert!(distance(&wide(&results.out), &out) < TOLERANCE, "out {label}");
        for (value, truth) in results.lse.iter().zip(&lse) {
            assert!((f64::from(*value) - truth).abs() < 1e-4, "lse {label}: {value}, expected {truth}");
        }
        let [to_q, to_k, to_v] = results.gradients.each_ref().map(|values| wide(values));
        assert!(distance(&to_v, &dv) < TOLERANCE, "dv {label}");
        // A query that sees itself alone has no gradient by its score.
        if rows > 1 && shape.window != Some(1) {
            let (for_q, for_k) = (distance(&to_q, &dq), distance(&to_k, &dk));
            assert!(for_q < 3.0 * TOLERANCE && for_k < 3.0 * TOLERANCE, "dq {for_q} dk {for_k} {label}");
        }
    }
}

#[test]
fn all_shapes_agree_with_double_precision_on_every_instruction_set() {
    for (heads, kv_heads, head_dim) in SHAPES {
        for rows in [1, 20, 64, 65, 150] {
            check(&shape(heads, kv_heads, head_dim), rows);
        }
    }
    check(&shape(70, 1, 16), 70);
}

#[test]
fn windows_agree_with_double_precision_on_every_instruction_set() {
    for (heads, kv_heads, head_dim) in [(4, 1, 16), (6, 2, 20)] {
        for window in [1, 2, 17, 64, 65, 130, 1000] {
            check(&AttentionShape { window: Some(window), ..shape(heads, kv_heads, head_dim) }, 230);
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = AttentionShape { scale: 50.0, ..shape(3, 1, 16) };
    let values = inputs(&shape, 150);
    let values = values.each_ref().map(|values| &**values);
    for (name, machine) in machines() {
        let results = compute(machine, &shape, values, &[150]);
        let finite = |values: &[bf16]| values.iter().all(|value| value.widen().is_finite());
        assert!(finite(&results.out) && results.gradients.iter().all(|values| finite(values)), "{name}");
    }
}

#[test]
fn results_depend_neither_on_threads_nor_on_neighbours() {
    let shape = shape(9, 3, 64);
    let segments = [128, 20, 0, 300, 1, 64];
    let values = inputs(&shape, segments.iter().sum());
    let values = values.each_ref().map(|values| &**values);
    let machine = Machine::detect();
    let one = with_threads(1, || compute(machine, &shape, values, &segments));
    assert!(one == with_threads(4, || compute(machine, &shape, values, &segments)), "threads change bits");
    let (queries, keys) =
        (148 * shape.query_width()..448 * shape.query_width(), 148 * shape.key_width()..448 * shape.key_width());
    let [q, k, v, dout] = values;
    let alone = [&q[queries.clone()], &k[keys.clone()], &v[keys.clone()], &dout[queries.clone()]];
    let alone = with_threads(3, || compute(machine, &shape, alone, &[300]));
    assert!(alone.out == one.out[queries.clone()], "neighbours change the output");
    assert!(alone.lse == one.lse[148 * 9..448 * 9], "neighbours change lse");
    for (alone, (all, place)) in alone.gradients.iter().zip(one.gradients.iter().zip([queries, keys.clone(), keys])) {
        assert!(*alone == all[place], "neighbours change a gradient");
    }
}

#[test]
fn the_f32_path_on_the_same_values_is_near() {
    let shape = shape(9, 3, 64);
    let segments = [70, 190];
    let values = inputs(&shape, 260);
    let [q, k, v, dout] = values.each_ref().map(|values| wide(values));
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; 260 * 9]);
    segmented_attention(&shape, &q, &k, &v, &segments, &mut out, &mut lse);
    let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|values| vec![0.0; values.len()]);
    segmented_attention_backward(&shape, &q, &k, &v, &out, &lse, &dout, &segments, &mut dq, &mut dk, &mut dv);
    let results = compute(Machine::detect(), &shape, values.each_ref().map(|values| &**values), &segments);
    let [to_q, to_k, to_v] = results.gradients.each_ref().map(|values| wide(values));
    for (values, truth) in [(wide(&results.out), out), (to_q, dq), (to_k, dk), (to_v, dv)] {
        assert!(distance(&values, &widen(&truth)) < 3.0 * TOLERANCE);
    }
}
