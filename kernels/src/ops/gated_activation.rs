//! The gated activations of the feed-forward block.
//!
//! `y = a(g) u`, with the logistic function `s(x) = 1 / (1 + e^-x)`:
//!
//! | | `a(g)` | slope `a'(g)` |
//! |---|---|---|
//! | `SwiGlu` | `g s(g)` | `s(g) (1 + g (1 - s(g)))` |
//! | `GeGlu` | `g s(z)`, `z = 2 sqrt(2 / pi) (g + 0.044715 g^3)` | `s(z) (1 + g z' (1 - s(z)))` |
//!
//! The second is the tanh form of GELU, as `(1 + tanh(z / 2)) / 2 = s(z)`. Backward: `du = dy a(g)`, `dg = dy u a'(g)`.

use rayon::prelude::*;

use super::TASK_ELEMENTS;
use super::simd::{Operation, Simd, dispatch, exp};
use crate::{Element, InstructionSet, parallel};

/// What the gate goes through before it multiplies the other half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatedActivation {
    /// `silu(g) u`.
    SwiGlu,
    /// `gelu(g) u`, in the tanh form.
    GeGlu,
}

/// `out = a(gate) * up`, element by element.
///
/// # Panics
///
/// When the lengths differ.
pub fn gated_activation<T: Element>(activation: GatedActivation, gate: &[T], up: &[T], out: &mut [T]) {
    gated_activation_with(InstructionSet::detect(), activation, gate, up, out);
}

fn gated_activation_with<T: Element>(
    isa: InstructionSet,
    activation: GatedActivation,
    gate: &[T],
    up: &[T],
    out: &mut [T],
) {
    assert_eq!(gate.len(), up.len(), "gated_activation: gate and up differ in length");
    assert_eq!(gate.len(), out.len(), "gated_activation: gate and output differ in length");
    parallel::for_each_chunk(out, TASK_ELEMENTS, |index, out| {
        let own = index * TASK_ELEMENTS..index * TASK_ELEMENTS + out.len();
        let (gate, up) = (&gate[own.clone()], &up[own]);
        match activation {
            GatedActivation::SwiGlu => dispatch(isa, Forward { kind: Silu, gate, up, out }),
            GatedActivation::GeGlu => dispatch(isa, Forward { kind: Gelu, gate, up, out }),
        }
    });
}

/// The gradients of [`gated_activation`]; overwrites `dgate` and `dup`.
///
/// # Panics
///
/// When the lengths differ.
pub fn gated_activation_backward<T: Element>(
    activation: GatedActivation,
    gate: &[T],
    up: &[T],
    dy: &[T],
    dgate: &mut [T],
    dup: &mut [T],
) {
    gated_activation_backward_with(InstructionSet::detect(), activation, gate, up, dy, dgate, dup);
}

fn gated_activation_backward_with<T: Element>(
    isa: InstructionSet,
    activation: GatedActivation,
    gate: &[T],
    up: &[T],
    dy: &[T],
    dgate: &mut [T],
    dup: &mut [T],
) {
    for (name, length) in [("up", up.len()), ("dy", dy.len()), ("dgate", dgate.len()), ("dup", dup.len())] {
        assert_eq!(gate.len(), length, "gated_activation_backward: gate and {name} differ in length");
    }
    let part = |gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]| match activation {
        GatedActivation::SwiGlu => dispatch(isa, Backward { kind: Silu, gate, up, dy, dgate, dup }),
        GatedActivation::GeGlu => dispatch(isa, Backward { kind: Gelu, gate, up, dy, dgate, dup }),
    };
    if gate.len() <= TASK_ELEMENTS {
        part(gate, up, dy, dgate, dup);
        return;
    }
    gate.par_chunks(TASK_ELEMENTS)
        .zip(up.par_chunks(TASK_ELEMENTS))
        .zip(dy.par_chunks(TASK_ELEMENTS))
        .zip(dgate.par_chunks_mut(TASK_ELEMENTS))
        .zip(dup.par_chunks_mut(TASK_ELEMENTS))
        .for_each(|((((gate, up), dy), dgate), dup)| part(gate, up, dy, dgate, dup));
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn logistic<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let one = simd.splat(1.0);
    simd.div(one, simd.add(one, exp(simd, simd.sub(simd.splat(0.0), x))))
}

/// The body of one activation.
trait Gate: Copy {
    /// `a(g)`.
    fn value<S: Simd>(self, simd: S, gate: S::Vector) -> S::Vector;

    /// `a(g)` and `a'(g)`.
    fn value_and_slope<S: Simd>(self, simd: S, gate: S::Vector) -> (S::Vector, S::Vector);
}

#[derive(Clone, Copy)]
struct Silu;

impl Gate for Silu {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, gate: S::Vector) -> S::Vector {
        simd.mul(gate, logistic(simd, gate))
    }

    #[inline(always)]
    fn value_and_slope<S: Simd>(self, simd: S, gate: S::Vector) -> (S::Vector, S::Vector) {
        let one = simd.splat(1.0);
        let s = logistic(simd, gate);
        (simd.mul(gate, s), simd.mul(s, simd.mul_add(gate, simd.sub(one, s), one)))
    }
}

#[derive(Clone, Copy)]
struct Gelu;

/// `2 sqrt(2 / pi)` and that times 0.044715.
const GELU: (f32, f32) = (1.595_769, 0.071_354_82);

impl Gelu {
    /// `z` and `z'`; beyond 20 the gate is open or shut to the last bit, and the cube cannot overflow there.
    #[inline(always)]
    fn argument<S: Simd>(simd: S, gate: S::Vector) -> (S::Vector, S::Vector) {
        let gate = simd.min(simd.splat(20.0), simd.max(simd.splat(-20.0), gate));
        let (linear, cubic) = (simd.splat(GELU.0), simd.mul(simd.splat(GELU.1), simd.mul(gate, gate)));
        (simd.mul(gate, simd.add(linear, cubic)), simd.mul_add(simd.splat(3.0), cubic, linear))
    }
}

impl Gate for Gelu {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, gate: S::Vector) -> S::Vector {
        simd.mul(gate, logistic(simd, Self::argument(simd, gate).0))
    }

    #[inline(always)]
    fn value_and_slope<S: Simd>(self, simd: S, gate: S::Vector) -> (S::Vector, S::Vector) {
        let one = simd.splat(1.0);
        let (z, dz) = Self::argument(simd, gate);
        let s = logistic(simd, z);
        let slope = simd.mul(s, simd.mul_add(simd.mul(gate, dz), simd.sub(one, s), one));
        (simd.mul(gate, s), slope)
    }
}

struct Forward<'a, G, T> {
    kind: G,
    gate: &'a [T],
    up: &'a [T],
    out: &'a mut [T],
}

impl<G: Gate, T: Element> Operation for Forward<'_, G, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut gates = self.gate.chunks_exact(S::WIDTH);
        let mut ups = self.up.chunks_exact(S::WIDTH);
        let mut outs = self.out.chunks_exact_mut(S::WIDTH);
        for ((gate, up), out) in (&mut gates).zip(&mut ups).zip(&mut outs) {
            simd.write(out, simd.mul(self.kind.value(simd, simd.read(gate)), simd.read(up)));
        }
        let gate = simd.read_short(gates.remainder());
        let up = simd.read_short(ups.remainder());
        simd.write_short(outs.into_remainder(), simd.mul(self.kind.value(simd, gate), up));
    }
}

struct Backward<'a, G, T> {
    kind: G,
    gate: &'a [T],
    up: &'a [T],
    dy: &'a [T],
    dgate: &'a mut [T],
    dup: &'a mut [T],
}

/// The gradients with respect to gate and up.
#[inline(always)]
fn gradients<S: Simd, G: Gate>(
    simd: S,
    kind: G,
    gate: S::Vector,
    up: S::Vector,
    dy: S::Vector,
) -> (S::Vector, S::Vector) {
    let (value, slope) = kind.value_and_slope(simd, gate);
    (simd.mul(simd.mul(dy, up), slope), simd.mul(dy, value))
}

impl<G: Gate, T: Element> Operation for Backward<'_, G, T> {
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
            let (dg, du) = gradients(simd, self.kind, simd.read(gate), simd.read(up), simd.read(dy));
            simd.write(dgate, dg);
            simd.write(dup, du);
        }
        let gate = simd.read_short(gates.remainder());
        let up = simd.read_short(ups.remainder());
        let (dg, du) = gradients(simd, self.kind, gate, up, simd.read_short(dys.remainder()));
        simd.write_short(dgates.into_remainder(), dg);
        simd.write_short(dups.into_remainder(), du);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the values are exact")]

    use super::*;
    use crate::ops::testing::{assert_close, gradient, noise, with_threads};

    const KINDS: [GatedActivation; 2] = [GatedActivation::SwiGlu, GatedActivation::GeGlu];

    fn reference(kind: GatedActivation, gate: f64, up: f64) -> f64 {
        match kind {
            GatedActivation::SwiGlu => gate / (1.0 + (-gate).exp()) * up,
            GatedActivation::GeGlu => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
                0.5 * gate * (1.0 + inner.tanh()) * up
            }
        }
    }

    fn inputs(length: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let gate = noise(1, length).into_iter().map(|x| x * 12.0).collect();
        (gate, noise(2, length), noise(3, length))
    }

    #[test]
    fn forward_agrees_with_the_formula_on_every_instruction_set() {
        for kind in KINDS {
            for length in [0, 1, 15, 16, 37, 1536] {
                let (gate, up, _) = inputs(length);
                let pairs = gate.iter().zip(&up);
                let truth: Vec<f64> = pairs.map(|(g, u)| reference(kind, f64::from(*g), f64::from(*u))).collect();
                for isa in InstructionSet::available() {
                    let mut out = vec![f32::NAN; length];
                    gated_activation_with(isa, kind, &gate, &up, &mut out);
                    assert_close(&out, &truth, 1e-6, &format!("{} {kind:?}", isa.name()));
                }
            }
        }
    }

    #[test]
    fn extreme_gates_stay_finite() {
        let gate = [-1000.0, -100.0, 100.0, 1000.0];
        for (isa, kind) in InstructionSet::available().into_iter().flat_map(|isa| KINDS.map(|kind| (isa, kind))) {
            let (mut out, mut dgate, mut dup) = ([0.0; 4], [0.0; 4], [0.0; 4]);
            gated_activation_with(isa, kind, &gate, &[1.0; 4], &mut out);
            assert_eq!(out.map(f32::abs), [0.0, 0.0, 100.0, 1000.0], "{}", isa.name());
            gated_activation_backward_with(isa, kind, &gate, &[1.0; 4], &[1.0; 4], &mut dgate, &mut dup);
            assert_eq!(dgate.map(f32::abs), [0.0, 0.0, 1.0, 1.0], "{}", isa.name());
            assert_eq!(dup.map(f32::abs), [0.0, 0.0, 100.0, 1000.0], "{}", isa.name());
        }
    }

    #[test]
    fn backward_agrees_with_central_differences() {
        let (gate, up, dy) = inputs(53);
        let (gate_wide, up_wide) = (crate::ops::testing::widen(&gate), crate::ops::testing::widen(&up));
        for kind in KINDS {
            let loss = |gate: &[f64], up: &[f64]| -> f64 {
                (0..gate.len()).map(|i| reference(kind, gate[i], up[i]) * f64::from(dy[i])).sum()
            };
            let dgate_truth = gradient(&gate, |gate| loss(gate, &up_wide));
            let dup_truth = gradient(&up, |up| loss(&gate_wide, up));
            for isa in InstructionSet::available() {
                let (mut dgate, mut dup) = (vec![f32::NAN; 53], vec![f32::NAN; 53]);
                gated_activation_backward_with(isa, kind, &gate, &up, &dy, &mut dgate, &mut dup);
                assert_close(&dgate, &dgate_truth, 1e-5, &format!("{} {kind:?}", isa.name()));
                assert_close(&dup, &dup_truth, 1e-5, &format!("{} {kind:?}", isa.name()));
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (gate, up, dy) = inputs(100_003);
        for kind in KINDS {
            let run = || {
                let mut results = [vec![0.0; gate.len()], vec![0.0; gate.len()], vec![0.0; gate.len()]];
                let [out, dgate, dup] = &mut results;
                gated_activation(kind, &gate, &up, out);
                gated_activation_backward(kind, &gate, &up, &dy, dgate, dup);
                results
            };
            assert_eq!(with_threads(1, run), with_threads(4, run));
        }
    }
}
