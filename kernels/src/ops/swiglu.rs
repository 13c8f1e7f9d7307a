//! The gated activation of the feed-forward block.
//!
//! Forward: `y = g s(g) u` with the logistic function `s(g) = 1 / (1 + e^-g)`.
//! Backward: `du = dy g s(g)`, `dg = dy u s(g) (1 + g (1 - s(g)))`.

use rayon::prelude::*;

use super::TASK_ELEMENTS;
use super::simd::{Operation, Simd, dispatch, exp};
use crate::InstructionSet;

/// `out = silu(gate) * up`, element by element.
///
/// # Panics
///
/// When the lengths differ.
pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    swiglu_with(InstructionSet::detect(), gate, up, out);
}

fn swiglu_with(isa: InstructionSet, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(gate.len(), up.len(), "swiglu: gate and up differ in length");
    assert_eq!(gate.len(), out.len(), "swiglu: gate and output differ in length");
    if gate.len() <= TASK_ELEMENTS {
        dispatch(isa, Forward { gate, up, out });
        return;
    }
    gate.par_chunks(TASK_ELEMENTS)
        .zip(up.par_chunks(TASK_ELEMENTS))
        .zip(out.par_chunks_mut(TASK_ELEMENTS))
        .for_each(|((gate, up), out)| dispatch(isa, Forward { gate, up, out }));
}

/// The gradients of [`swiglu`]; overwrites `dgate` and `dup`.
///
/// # Panics
///
/// When the lengths differ.
pub fn swiglu_backward(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    swiglu_backward_with(InstructionSet::detect(), gate, up, dy, dgate, dup);
}

fn swiglu_backward_with(isa: InstructionSet, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    for (name, length) in [("up", up.len()), ("dy", dy.len()), ("dgate", dgate.len()), ("dup", dup.len())] {
        assert_eq!(gate.len(), length, "swiglu_backward: gate and {name} differ in length");
    }
    if gate.len() <= TASK_ELEMENTS {
        dispatch(isa, Backward { gate, up, dy, dgate, dup });
        return;
    }
    gate.par_chunks(TASK_ELEMENTS)
        .zip(up.par_chunks(TASK_ELEMENTS))
        .zip(dy.par_chunks(TASK_ELEMENTS))
        .zip(dgate.par_chunks_mut(TASK_ELEMENTS))
        .zip(dup.par_chunks_mut(TASK_ELEMENTS))
        .for_each(|((((gate, up), dy), dgate), dup)| {
            dispatch(isa, Backward { gate, up, dy, dgate, dup });
        });
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn logistic<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let one = simd.splat(1.0);
    simd.div(one, simd.add(one, exp(simd, simd.sub(simd.splat(0.0), x))))
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Operation for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut gates = self.gate.chunks_exact(S::WIDTH);
        let mut ups = self.up.chunks_exact(S::WIDTH);
        let mut outs = self.out.chunks_exact_mut(S::WIDTH);
        for ((gate, up), out) in (&mut gates).zip(&mut ups).zip(&mut outs) {
            let gate = simd.load(gate);
            simd.store(out, simd.mul(simd.mul(gate, logistic(simd, gate)), simd.load(up)));
        }
        let gate = simd.load_short(gates.remainder(), 0.0);
        let up = simd.load_short(ups.remainder(), 0.0);
        simd.store_short(outs.into_remainder(), simd.mul(simd.mul(gate, logistic(simd, gate)), up));
    }
}

struct Backward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    dy: &'a [f32],
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
}

/// The gradients with respect to gate and up.
#[inline(always)]
fn gradients<S: Simd>(simd: S, gate: S::Vector, up: S::Vector, dy: S::Vector) -> (S::Vector, S::Vector) {
    let one = simd.splat(1.0);
    let s = logistic(simd, gate);
    let slope = simd.mul(s, simd.mul_add(gate, simd.sub(one, s), one));
    (simd.mul(simd.mul(dy, up), slope), simd.mul(dy, simd.mul(gate, s)))
}

impl Operation for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut gates = self.gate.chunks_exact(S::WIDTH);
        let mut ups = self.up.chunks_exact(S::WIDTH);
        let mut dys = self.dy.chunks_exact(S::WIDTH);
        let mut dgates = self.dgate.chunks_exact_mut(S::WIDTH);
        let mut dups = self.dup.chunks_exact_mut(S::WIDTH);
        for ((((gate, up), dy), dgate), dup) in (&mut gates).zip(&mut ups).zip(&mut dys).zip(&mut dgates).zip(&mut dups)
        {
            let (dg, du) = gradients(simd, simd.load(gate), simd.load(up), simd.load(dy));
            simd.store(dgate, dg);
            simd.store(dup, du);
        }
        let gate = simd.load_short(gates.remainder(), 0.0);
        let up = simd.load_short(ups.remainder(), 0.0);
        let (dg, du) = gradients(simd, gate, up, simd.load_short(dys.remainder(), 0.0));
        simd.store_short(dgates.into_remainder(), dg);
        simd.store_short(dups.into_remainder(), du);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the values are exact")]

    use super::*;
    use crate::ops::testing::{assert_close, gradient, noise, with_threads};

    fn reference(gate: f64, up: f64) -> f64 {
        gate / (1.0 + (-gate).exp()) * up
    }

    fn inputs(length: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let gate = noise(1, length).into_iter().map(|x| x * 12.0).collect();
        (gate, noise(2, length), noise(3, length))
    }

    #[test]
    fn forward_agrees_with_the_formula_on_every_instruction_set() {
        for length in [0, 1, 15, 16, 37, 1536] {
            let (gate, up, _) = inputs(length);
            let truth: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| reference(f64::from(*g), f64::from(*u))).collect();
            for isa in InstructionSet::available() {
                let mut out = vec![f32::NAN; length];
                swiglu_with(isa, &gate, &up, &mut out);
                assert_close(&out, &truth, 1e-6, isa.name());
            }
        }
    }

    #[test]
    fn extreme_gates_stay_finite() {
        let gate = [-1000.0, -100.0, 100.0, 1000.0];
        for isa in InstructionSet::available() {
            let (mut out, mut dgate, mut dup) = ([0.0; 4], [0.0; 4], [0.0; 4]);
            swiglu_with(isa, &gate, &[1.0; 4], &mut out);
            assert_eq!(out.map(f32::abs), [0.0, 0.0, 100.0, 1000.0], "{}", isa.name());
            swiglu_backward_with(isa, &gate, &[1.0; 4], &[1.0; 4], &mut dgate, &mut dup);
            assert_eq!(dgate.map(f32::abs), [0.0, 0.0, 1.0, 1.0], "{}", isa.name());
            assert_eq!(dup.map(f32::abs), [0.0, 0.0, 100.0, 1000.0], "{}", isa.name());
        }
    }

    #[test]
    fn backward_agrees_with_central_differences() {
        let (gate, up, dy) = inputs(53);
        let loss = |gate: &[f64], up: &[f64]| -> f64 {
            (0..gate.len()).map(|i| reference(gate[i], up[i]) * f64::from(dy[i])).sum()
        };
        let (gate_wide, up_wide) = (crate::ops::testing::widen(&gate), crate::ops::testing::widen(&up));
        let dgate_truth = gradient(&gate, |gate| loss(gate, &up_wide));
        let dup_truth = gradient(&up, |up| loss(&gate_wide, up));
        for isa in InstructionSet::available() {
            let (mut dgate, mut dup) = (vec![f32::NAN; 53], vec![f32::NAN; 53]);
            swiglu_backward_with(isa, &gate, &up, &dy, &mut dgate, &mut dup);
            assert_close(&dgate, &dgate_truth, 1e-5, isa.name());
            assert_close(&dup, &dup_truth, 1e-5, isa.name());
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (gate, up, dy) = inputs(100_003);
        let run = || {
            let mut results = [vec![0.0; gate.len()], vec![0.0; gate.len()], vec![0.0; gate.len()]];
            let [out, dgate, dup] = &mut results;
            swiglu(&gate, &up, out);
            swiglu_backward(&gate, &up, &dy, dgate, dup);
            results
        };
        assert_eq!(with_threads(1, run), with_threads(4, run));
    }
}
