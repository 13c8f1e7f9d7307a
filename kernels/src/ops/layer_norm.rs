//! Layer normalisation of rows, and the exact GELU: what encoders of the BERT family have between their products.
//!
//! For each row of `n` elements, with a shift `s` that is added first: `z = x + s`, `m = mean(z)`, `v = mean((z - m)^2)`,
//! `y_i = (z_i - m) / sqrt(v + eps) w_i + b_i`.
//!
//! `gelu(x) = x (1 + erf(x / sqrt 2)) / 2`, with `erf` by formula 7.1.26 of Abramowitz and Stegun (absolute error below
//! 1.5e-7).

use rayon::prelude::*;

use super::TASK_ELEMENTS;
use super::simd::{Operation, Simd, dispatch, exp};
use crate::InstructionSet;

/// Adds `shift` to each row of `x` and normalises it in place, to `weight` and `bias`.
///
/// # Panics
///
/// When `x` is not whole rows of `weight.len()` elements, or `shift` or `bias` has another length.
pub fn layer_norm(x: &mut [f32], shift: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    layer_norm_with(InstructionSet::detect(), x, shift, weight, bias, eps);
}

fn layer_norm_with(isa: InstructionSet, x: &mut [f32], shift: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = weight.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "layer_norm: {} elements are not rows of {n}", x.len());
    assert!(shift.len() == n && bias.len() == n, "layer_norm: weight, shift and bias differ in length");
    x.par_chunks_mut(n * (TASK_ELEMENTS / n).max(1))
        .for_each(|x| dispatch(isa, Normalise { x, shift, weight, bias, eps }));
}

/// A vector of a row, or what is left of it, filled up with zeros.
#[inline(always)]
fn read<S: Simd>(simd: S, source: &[f32]) -> S::Vector {
    if source.len() == S::WIDTH { simd.load(source) } else { simd.read_short(source) }
}

/// Writes what [`read`] has read.
#[inline(always)]
fn write<S: Simd>(simd: S, target: &mut [f32], vector: S::Vector) {
    if target.len() == S::WIDTH { simd.store(target, vector) } else { simd.store_short(target, vector) }
}

struct Normalise<'a> {
    x: &'a mut [f32],
    shift: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Operation for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.weight.len();
        for row in self.x.chunks_exact_mut(n) {
            let mut sum = simd.splat(0.0);
            for (x, shift) in row.chunks_mut(S::WIDTH).zip(self.shift.chunks(S::WIDTH)) {
                let shifted = simd.add(read(simd, x), read(simd, shift));
                write(simd, x, shifted);
                // What stands beyond the end of a short vector is zero in both.
                sum = simd.add(sum, shifted);
            }
            let mean = simd.sum(sum) / n as f32;
            let mut squares = simd.splat(0.0);
            for x in row.chunks_mut(S::WIDTH) {
                let centred = simd.sub(read(simd, x), simd.splat(mean));
                write(simd, x, centred);
                let centred = simd.select_first(x.len(), centred, simd.splat(0.0));
                squares = simd.mul_add(centred, centred, squares);
            }
            let scale = simd.splat(1.0 / (simd.sum(squares) / n as f32 + self.eps).sqrt());
            let parameters = self.weight.chunks(S::WIDTH).zip(self.bias.chunks(S::WIDTH));
            for (x, (weight, bias)) in row.chunks_mut(S::WIDTH).zip(parameters) {
                let scaled = simd.mul(read(simd, x), scale);
                write(simd, x, simd.mul_add(scaled, read(simd, weight), read(simd, bias)));
            }
        }
    }
}

/// `x = gelu(x + bias)` for rows of `bias.len()` elements, in the exact form.
///
/// # Panics
///
/// When `x` is not whole rows.
pub fn biased_gelu(x: &mut [f32], bias: &[f32]) {
    biased_gelu_with(InstructionSet::detect(), x, bias);
}

fn biased_gelu_with(isa: InstructionSet, x: &mut [f32], bias: &[f32]) {
    let n = bias.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "biased_gelu: {} elements are not rows of {n}", x.len());
    x.par_chunks_mut(n * (TASK_ELEMENTS / n).max(1)).for_each(|x| dispatch(isa, Gelu { x, bias }));
}

struct Gelu<'a> {
    x: &'a mut [f32],
    bias: &'a [f32],
}

/// Coefficients of formula 7.1.26.
const ERF: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
const ERF_P: f32 = 0.327_591_1;

/// `gelu(x)`: with `t = 1 / (1 + p |z|)` and `z = x / sqrt 2`, `1 - erf |z| = poly(t) e^(-z^2)`.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let zero = simd.splat(0.0);
    let z = simd.mul(x, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let size = simd.max(z, simd.sub(zero, z));
    let t = simd.div(simd.splat(1.0), simd.mul_add(simd.splat(ERF_P), size, simd.splat(1.0)));
    let mut poly = simd.splat(ERF[4]);
    for coefficient in [ERF[3], ERF[2], ERF[1], ERF[0]] {
        poly = simd.mul_add(poly, t, simd.splat(coefficient));
    }
    let tail = simd.mul(simd.mul(poly, t), exp(simd, simd.sub(zero, simd.mul(z, z))));
    // gelu(x) = max(x, 0) - |x| tail / 2 on both sides.
    let positive = simd.max(x, zero);
    let absolute = simd.max(x, simd.sub(zero, x));
    simd.sub(positive, simd.mul(simd.mul(absolute, simd.splat(0.5)), tail))
}

impl Operation for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.x.chunks_exact_mut(self.bias.len()) {
            for (x, bias) in row.chunks_mut(S::WIDTH).zip(self.bias.chunks(S::WIDTH)) {
                write(simd, x, gelu(simd, simd.add(read(simd, x), read(simd, bias))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, noise, with_threads};

    #[test]
    fn rows_are_centred_scaled_and_shifted() {
        for n in [1, 7, 16, 33, 384] {
            let (x, shift) = (noise(1, 5 * n), noise(2, n));
            let (weight, bias) = (noise(3, n), noise(4, n));
            let mut expected = Vec::new();
            for row in x.chunks(n) {
                let z: Vec<f64> = row.iter().zip(&shift).map(|(x, s)| f64::from(*x) + f64::from(*s)).collect();
                let mean = z.iter().sum::<f64>() / n as f64;
                let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / n as f64;
                let parameters = weight.iter().zip(&bias).map(|(w, b)| (f64::from(*w), f64::from(*b)));
                let normal = |(z, (w, b)): (&f64, (f64, f64))| (z - mean) / (variance + 1e-5).sqrt() * w + b;
                expected.extend(z.iter().zip(parameters).map(normal));
            }
            for isa in InstructionSet::available() {
                let mut found = x.clone();
                layer_norm_with(isa, &mut found, &shift, &weight, &bias, 1e-5);
                assert_close(&found, &expected, 2e-5, "layer_norm");
            }
        }
    }

    #[test]
    fn gelu_is_that_of_the_error_function() {
        // gelu at -4, -1, -0.5, 0, 0.3, 1, 6, from mpmath.
        let x = [-4.0, -1.0, -0.5, 0.0, 0.3, 1.0, 6.0_f32];
        let expected = [-0.000_126_685, -0.158_655_25, -0.154_268_77, 0.0, 0.185_373_2, 0.841_344_7, 6.0];
        for isa in InstructionSet::available() {
            let mut found = x;
            biased_gelu_with(isa, &mut found, &[0.0; 7]);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{isa:?}: {found} {expected}");
            }
        }
        let mut large = [-1e30, 1e30_f32, -200.0];
        biased_gelu(&mut large, &[0.0; 3]);
        assert!(large[0].abs() < 1e-6 && large[1] > 9e29 && large[2].abs() < 1e-6, "{large:?}");
    }

    #[test]
    fn threads_change_nothing() {
        let (x, bias) = (noise(5, 300 * 384), noise(6, 384));
        let run = |threads| {
            with_threads(threads, || {
                let mut x = x.clone();
                biased_gelu(&mut x, &bias);
                layer_norm(&mut x, &bias, &bias, &bias, 1e-12);
                x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            })
        };
        assert_eq!(run(1), run(3));
    }
}
