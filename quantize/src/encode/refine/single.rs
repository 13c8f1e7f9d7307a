//! Blocks of 32 with one scale (and one minimum) in half precision.

use espalier_kernels::blocks::{BlockIq4Nl, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, LEGACY_BLOCK};

use super::super::legacy::{fifth_bits, low_nibbles, nibbles};
use super::super::nearest::{from_half, nearest_level, to_half};
use super::super::nonlinear::{nearest_nonlinear, packed_levels};
use super::{Refine, moments, rounding_error};

type Values = [f32; LEGACY_BLOCK];

/// Parts of the scale that the search starts from, besides the scale itself.
const STARTS: [f32; 7] = [1.0, 0.8, 0.87, 0.94, 1.06, 1.13, 1.2];

/// Fits of scale and levels in turn, from each start.
const FITS: usize = 4;

/// The scale, and the minimum where there is one, with the least error that is found; both in half precision.
#[inline(always)]
fn improved(
    values: &Values,
    weights: &Values,
    (d, m): (f32, Option<f32>),
    nearest: impl Fn(f32) -> f32 + Copy,
) -> (f32, Option<f32>) {
    let shift = |m: Option<f32>| -m.unwrap_or(0.0);
    let mut best = (d, m);
    let mut best_error = rounding_error(values, weights, (d, shift(m)), nearest);
    // Without a minimum the grid has one level more on one side: which side is a choice.
    let signs: &[f32] = if m.is_some() { &[1.0] } else { &[1.0, -1.0] };
    for start in signs.iter().flat_map(|sign| STARTS.map(|start| sign * start)) {
        let mut found = (start * d, m);
        for _ in 0..FITS {
            let sums = moments(values, weights, (found.0, shift(found.1)), nearest);
            let (d, m) = if found.1.is_some() {
                let determinant = sums.weight * sums.level_level - sums.level * sums.level;
                let d = (sums.weight * sums.x_level - sums.x * sums.level) / determinant;
                let m = (sums.level_level * sums.x - sums.level * sums.x_level) / determinant;
                (d, Some(from_half(to_half(m as f32))))
            } else {
                (sums.x_level / sums.level_level, None)
            };
            let d = from_half(to_half(d as f32));
            if !(d.is_finite() && m.unwrap_or(0.0).is_finite()) {
                break;
            }
            found = (d, m);
            let error = rounding_error(values, weights, (d, shift(m)), nearest);
            if error < best_error {
                (best, best_error) = (found, error);
            }
        }
    }
    best
}

/// Levels from 0, of elements rounded to the nearest `d level + m`.
#[inline(always)]
fn levels(values: &Values, (d, m): (f32, f32), lowest: f32, highest: f32) -> [u8; LEGACY_BLOCK] {
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut levels = [0; LEGACY_BLOCK];
    for (level, value) in levels.iter_mut().zip(values) {
        *level = (nearest_level((value - m) * inverse, lowest, highest) - lowest) as u8;
    }
    levels
}

impl Refine<LEGACY_BLOCK> for BlockQ4_0 {
    #[inline(always)]
    fn refined(&self, values: &Values, weights: &Values) -> Self {
        let nearest = |value: f32| nearest_level(value, -8.0, 7.0);
        let (d, _) = improved(values, weights, (from_half(self.d), None), nearest);
        Self { d: to_half(d), qs: nibbles(&levels(values, (d, 0.0), -8.0, 7.0)) }
    }
}

impl Refine<LEGACY_BLOCK> for BlockQ5_0 {
    #[inline(always)]
    fn refined(&self, values: &Values, weights: &Values) -> Self {
        let nearest = |value: f32| nearest_level(value, -16.0, 15.0);
        let (d, _) = improved(values, weights, (from_half(self.d), None), nearest);
        let levels = levels(values, (d, 0.0), -16.0, 15.0);
        Self { d: to_half(d), qh: fifth_bits(&levels), qs: low_nibbles(&levels) }
    }
}

/// Scale, minimum and levels with one of `0..=greatest`.
#[inline(always)]
fn with_minimum(
    values: &Values,
    weights: &Values,
    (d, m): ([u8; 2], [u8; 2]),
    greatest: f32,
) -> ([u8; 2], [u8; 2], [u8; LEGACY_BLOCK]) {
    let nearest = |value: f32| nearest_level(value, 0.0, greatest);
    let (d, m) = improved(values, weights, (from_half(d), Some(from_half(m))), nearest);
    let m = m.unwrap_or(0.0);
    (to_half(d), to_half(m), levels(values, (d, m), 0.0, greatest))
}

impl Refine<LEGACY_BLOCK> for BlockQ4_1 {
    #[inline(always)]
    fn refined(&self, values: &Values, weights: &Values) -> Self {
        let (d, m, levels) = with_minimum(values, weights, (self.d, self.m), 15.0);
        Self { d, m, qs: nibbles(&levels) }
    }
}

impl Refine<LEGACY_BLOCK> for BlockQ5_1 {
    #[inline(always)]
    fn refined(&self, values: &Values, weights: &Values) -> Self {
        let (d, m, levels) = with_minimum(values, weights, (self.d, self.m), 31.0);
        Self { d, m, qh: fifth_bits(&levels), qs: low_nibbles(&levels) }
    }
}

impl Refine<LEGACY_BLOCK> for BlockIq4Nl {
    #[inline(always)]
    fn refined(&self, values: &Values, weights: &Values) -> Self {
        let (d, _) = improved(values, weights, (from_half(self.d), None), nearest_nonlinear);
        Self { d: to_half(d), qs: packed_levels(values, if d == 0.0 { 0.0 } else { 1.0 / d }) }
    }
}
