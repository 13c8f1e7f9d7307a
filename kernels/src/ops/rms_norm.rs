//! Root-mean-square normalisation.
//!
//! Forward, for each row of `n` elements: `r = 1 / sqrt(mean(x^2) + eps)`, `y_i = x_i r w_i`.
//! Backward with frozen weights: `dx_i = r w_i dy_i - x_i r^3 / n * sum_j w_j dy_j x_j`.

use super::TASK_ELEMENTS;
use super::simd::{Operation, Simd, dispatch};
use crate::{Element, InstructionSet, parallel};

/// Normalises rows of `weight.len()` elements of `x` into `out`.
///
/// # Panics
///
/// When `x` is not whole rows or `out` has another length.
pub fn rms_norm<T: Element>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) {
    rms_norm_with(InstructionSet::detect(), x, weight, eps, out);
}

fn rms_norm_with<T: Element>(isa: InstructionSet, x: &[f32], weight: &[f32], eps: f32, out: &mut [T]) {
    let n = weight.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "rms_norm: {} elements are not rows of {n}", x.len());
    assert_eq!(x.len(), out.len(), "rms_norm: input and output differ in length");
    let task = n * (TASK_ELEMENTS / n).max(1);
    if x.len() <= task {
        dispatch(isa, Forward { x, weight, eps, out });
        return;
    }
    parallel::for_each_chunk(out, task, |index, out| {
        dispatch(isa, Forward { x: &x[index * task..][..out.len()], weight, eps, out });
    });
}

/// The gradient of [`rms_norm`] with respect to `x`; overwrites `dx`.
///
/// # Panics
///
/// When `x` is not whole rows, or `dy` or `dx` has another length.
pub fn rms_norm_backward<T: Element>(x: &[f32], weight: &[f32], eps: f32, dy: &[T], dx: &mut [f32]) {
    rms_norm_backward_with(InstructionSet::detect(), x, weight, eps, dy, None, dx);
}

/// [`rms_norm_backward`] with `beside` added: the gradient of the residual stream that runs past the norm.
///
/// # Panics
///
/// As [`rms_norm_backward`], and when `beside` has another length.
pub fn rms_norm_backward_beside<T: Element>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[T],
    beside: &[f32],
    dx: &mut [f32],
) {
    rms_norm_backward_with(InstructionSet::detect(), x, weight, eps, dy, Some(beside), dx);
}

fn rms_norm_backward_with<T: Element>(
    isa: InstructionSet,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[T],
    beside: Option<&[f32]>,
    dx: &mut [f32],
) {
    let n = weight.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "rms_norm_backward: {} elements are not rows of {n}", x.len());
    assert_eq!(x.len(), dy.len(), "rms_norm_backward: input and its output gradient differ in length");
    assert_eq!(x.len(), dx.len(), "rms_norm_backward: input and its gradient differ in length");
    assert!(beside.is_none_or(|beside| beside.len() == x.len()), "rms_norm_backward: what is beside differs in length");
    let task = n * (TASK_ELEMENTS / n).max(1);
    parallel::for_each_chunk(dx, task, |index, dx| {
        let own = index * task..index * task + dx.len();
        let beside = beside.map(|beside| &beside[own.clone()]);
        dispatch(isa, Backward { x: &x[own.clone()], weight, eps, dy: &dy[own], beside, dx });
    });
}

struct Forward<'a, T> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [T],
}

impl<T: Element> Operation for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.weight.len();
        for (x, out) in self.x.chunks_exact(n).zip(self.out.chunks_exact_mut(n)) {
            let r = simd.splat(reciprocal_root(simd, x, self.eps));
            let mut x_chunks = x.chunks_exact(S::WIDTH);
            let mut w_chunks = self.weight.chunks_exact(S::WIDTH);
            let mut out_chunks = out.chunks_exact_mut(S::WIDTH);
            for ((x, w), out) in (&mut x_chunks).zip(&mut w_chunks).zip(&mut out_chunks) {
                simd.write(out, simd.mul(simd.mul(simd.load(x), r), simd.load(w)));
            }
            let (x, w) = (simd.load_short(x_chunks.remainder(), 0.0), simd.load_short(w_chunks.remainder(), 0.0));
            simd.write_short(out_chunks.into_remainder(), simd.mul(simd.mul(x, r), w));
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`; the order of the additions depends on the length only.
#[inline(always)]
fn reciprocal_root<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let mut blocks = x.chunks_exact(4 * S::WIDTH);
    for block in &mut blocks {
        for (sum, lanes) in sums.iter_mut().zip(block.chunks_exact(S::WIDTH)) {
            let lanes = simd.load(lanes);
            *sum = simd.mul_add(lanes, lanes, *sum);
        }
    }
    let mut rest = blocks.remainder().chunks_exact(S::WIDTH);
    for lanes in &mut rest {
        let lanes = simd.load(lanes);
        sums[0] = simd.mul_add(lanes, lanes, sums[0]);
    }
    let short = simd.load_short(rest.remainder(), 0.0);
    sums[1] = simd.mul_add(short, short, sums[1]);
    let sum = simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])));
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}

struct Backward<'a, T> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    dy: &'a [T],
    beside: Option<&'a [f32]>,
    dx: &'a mut [f32],
}

impl<T: Element> Operation for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.weight.len();
        let rows = self.x.chunks_exact(n).zip(self.dy.chunks_exact(n)).zip(self.dx.chunks_exact_mut(n));
        for (index, ((x, dy), dx)) in rows.enumerate() {
            let r = reciprocal_root(simd, x, self.eps);
            let projection = weighted_dot(simd, x, self.weight, dy);
            let along = simd.splat(-r * r * r / n as f32 * projection);
            let r = simd.splat(r);
            let beside = self.beside.map(|beside| &beside[index * n..][..n]);
            let whole = n / S::WIDTH * S::WIDTH;
            for at in (0..whole).step_by(S::WIDTH) {
                let scaled = simd.mul(simd.mul(simd.read(&dy[at..]), simd.load(&self.weight[at..])), r);
                let mut sum = simd.mul_add(simd.load(&x[at..]), along, scaled);
                if let Some(beside) = beside {
                    sum = simd.add(sum, simd.load(&beside[at..]));
                }
                simd.store(&mut dx[at..], sum);
            }
            let (x, w) = (simd.load_short(&x[whole..], 0.0), simd.load_short(&self.weight[whole..], 0.0));
            let scaled = simd.mul(simd.mul(simd.read_short(&dy[whole..]), w), r);
            let mut sum = simd.mul_add(x, along, scaled);
            if let Some(beside) = beside {
                sum = simd.add(sum, simd.load_short(&beside[whole..], 0.0));
            }
            simd.store_short(&mut dx[whole..], sum);
        }
    }
}

/// `sum_j x_j w_j dy_j`, in an order that depends on the length only.
#[inline(always)]
fn weighted_dot<S: Simd, T: Element>(simd: S, x: &[f32], weight: &[f32], dy: &[T]) -> f32 {
    let mut sums = [simd.splat(0.0); 2];
    let mut x_chunks = x.chunks_exact(S::WIDTH);
    let mut w_chunks = weight.chunks_exact(S::WIDTH);
    let mut dy_chunks = dy.chunks_exact(S::WIDTH);
    for ((x, w), dy) in (&mut x_chunks).zip(&mut w_chunks).zip(&mut dy_chunks) {
        let sum = simd.mul_add(simd.mul(simd.load(x), simd.load(w)), simd.read(dy), sums[0]);
        sums = [sums[1], sum];
    }
    let x = simd.load_short(x_chunks.remainder(), 0.0);
    let w = simd.load_short(w_chunks.remainder(), 0.0);
    let dy = simd.read_short(dy_chunks.remainder());
    simd.sum(simd.add(simd.mul_add(simd.mul(x, w), dy, sums[0]), sums[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, noise, with_threads};

    fn reference(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
        let n = weight.len();
        x.chunks(n)
            .flat_map(|row| {
                let r = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / n as f64 + f64::from(eps)).sqrt();
                row.iter().zip(weight).map(move |(x, w)| x * r * f64::from(*w)).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn forward_agrees_with_the_formula_on_every_instruction_set() {
        for n in [1, 7, 64, 100, 576, 896] {
            let (x, weight) = (noise(1, 5 * n), noise(2, n));
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let truth = reference(&wide, &weight, 1e-5);
            for isa in InstructionSet::available() {
                let mut out = vec![f32::NAN; x.len()];
                rms_norm_with(isa, &x, &weight, 1e-5, &mut out);
                assert_close(&out, &truth, 1e-6, isa.name());
            }
        }
    }

    #[test]
    fn backward_agrees_with_central_differences() {
        for n in [3, 9, 33, 80] {
            let (x, weight, dy) = (noise(3, 2 * n), noise(4, n), noise(5, 2 * n));
            let loss = |x: &[f64]| -> f64 {
                reference(x, &weight, 1e-3).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            let truth = crate::ops::testing::gradient(&x, loss);
            for isa in InstructionSet::available() {
                let mut dx = vec![f32::NAN; x.len()];
                rms_norm_backward_with(isa, &x, &weight, 1e-3, &dy, None, &mut dx);
                assert_close(&dx, &truth, 1e-5, isa.name());
            }
        }
    }

    #[test]
    fn what_is_beside_is_added_and_bf16_gives_the_bits_of_its_f32() {
        for n in [9, 64, 576] {
            let (x, weight, beside) = (noise(9, 40 * n), noise(10, n), noise(11, 40 * n));
            let dy: Vec<half::bf16> = noise(12, 40 * n).into_iter().map(Element::round).collect();
            let wide: Vec<f32> = dy.iter().map(|value| value.widen()).collect();
            let (mut alone, mut both) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            rms_norm_backward(&x, &weight, 1e-5, &wide, &mut alone);
            rms_norm_backward_beside(&x, &weight, 1e-5, &dy, &beside, &mut both);
            let sum: Vec<f32> = alone.iter().zip(&beside).map(|(dx, beside)| dx + beside).collect();
            assert_eq!(sum, both);
        }
    }

    #[test]
    fn rows_depend_neither_on_threads_nor_on_neighbours() {
        let n = 576;
        let (x, weight, dy) = (noise(6, 100 * n), noise(7, n), noise(8, 100 * n));
        let run = || {
            let (mut out, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            rms_norm(&x, &weight, 1e-5, &mut out);
            rms_norm_backward(&x, &weight, 1e-5, &dy, &mut dx);
            (out, dx)
        };
        let one = with_threads(1, run);
        assert_eq!(one, with_threads(3, run));
        let mut row = vec![0.0; n];
        rms_norm(&x[57 * n..58 * n], &weight, 1e-5, &mut row);
        assert_eq!(row, one.0[57 * n..58 * n]);
    }
}
