//! Blocks of 256 whose groups have scales (and minima) of a few bits.

use espalier_kernels::blocks::{
    BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, K_BLOCK, scale_and_minimum,
};

use super::super::k_quants::{
    SixBitScales, round_again, six_bit_levels, three_bit_block, three_bit_scales, two_bit_block,
};
use super::super::lanes::{Lanes, side_by_side};
use super::super::nearest::{from_half, nearest_level, to_half};
use super::super::nonlinear::{block_with_steps, nearest_nonlinear};
use super::{Moments, Refine, moments, rounding_error};

/// Steps by which the number of a group is moved up and down.
const REACH: i32 = 2;

/// Rounds over groups and block, at most.
const ROUNDS: usize = 6;

/// The numbers that a block stores, for groups of `N`: `x ~ d sc level - dmin m`.
#[derive(Clone)]
struct Stored<const G: usize> {
    d: f32,
    dmin: f32,
    sc: [i32; G],
    m: [i32; G],
}

impl<const G: usize> Stored<G> {
    #[inline(always)]
    fn steps(&self, group: usize) -> (f32, f32) {
        (self.d * self.sc[group] as f32, self.dmin * self.m[group] as f32)
    }
}

/// The bounds of the numbers of a group.
#[derive(Clone, Copy)]
struct Bounds {
    sc: (i32, i32),
    /// Greatest minimum; 0 where the format has none.
    m: i32,
}

/// Moves the numbers of a block while its error gets lower.
#[inline(always)]
fn improved<const G: usize, const N: usize>(
    values: &[f32; K_BLOCK],
    weights: &[f32; K_BLOCK],
    mut stored: Stored<G>,
    bounds: Bounds,
    nearest: impl Fn(f32) -> f32 + Copy,
) -> Stored<G> {
    const { assert!(G * N == K_BLOCK) };
    let (x, weights) = (values.as_chunks::<N>().0, weights.as_chunks::<N>().0);
    let mut errors = [0.0; G];
    for group in 0..G {
        errors[group] = rounding_error(&x[group], &weights[group], stored.steps(group), nearest);
    }
    for _ in 0..ROUNDS {
        let mut moved = false;
        for group in 0..G {
            let (sc, m) = (stored.sc[group], stored.m[group]);
            for candidate_m in (m - REACH).max(0)..=(m + REACH).min(bounds.m) {
                for candidate_sc in (sc - REACH).max(bounds.sc.0)..=(sc + REACH).min(bounds.sc.1) {
                    let steps = (stored.d * candidate_sc as f32, stored.dmin * candidate_m as f32);
                    let error = rounding_error(&x[group], &weights[group], steps, nearest);
                    if error < errors[group] {
                        (errors[group], moved) = (error, true);
                        (stored.sc[group], stored.m[group]) = (candidate_sc, candidate_m);
                    }
                }
            }
        }
        let mut sums: [Moments; G] = std::array::from_fn(|_| Moments::default());
        for group in 0..G {
            sums[group] = moments(&x[group], &weights[group], stored.steps(group), nearest);
        }
        if let Some((d, dmin)) = block_scales(&sums, &stored, bounds.m > 0) {
            let candidate = Stored { d, dmin, ..stored.clone() };
            let mut found = [0.0; G];
            for group in 0..G {
                found[group] = rounding_error(&x[group], &weights[group], candidate.steps(group), nearest);
            }
            if found.iter().sum::<f32>() < errors.iter().sum::<f32>() {
                (stored, errors, moved) = (candidate, found, true);
            }
        }
        if !moved {
            break;
        }
    }
    stored
}

/// The scales of the block that fit its levels best, in half precision.
fn block_scales<const G: usize>(sums: &[Moments; G], stored: &Stored<G>, with_minima: bool) -> Option<(f32, f32)> {
    let (mut dd, mut dm, mut mm, mut dx, mut mx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (group, sums) in sums.iter().enumerate() {
        let (sc, m) = (f64::from(stored.sc[group]), f64::from(stored.m[group]));
        dd += sc * sc * sums.level_level;
        dm -= sc * m * sums.level;
        mm += m * m * sums.weight;
        dx += sc * sums.x_level;
        mx -= m * sums.x;
    }
    let determinant = dd * mm - dm * dm;
    let (d, dmin) = if with_minima && determinant > 1e-9 * dd * mm {
        ((dx * mm - mx * dm) / determinant, (mx * dd - dx * dm) / determinant)
    } else {
        ((dx - dm * f64::from(stored.dmin)) / dd, f64::from(stored.dmin))
    };
    let rounded = [d, dmin].map(|number| from_half(to_half(number as f32)));
    (rounded.iter().all(|number| number.is_finite()) && rounded[1] >= 0.0).then_some((rounded[0], rounded[1]))
}

/// `Q4_K` and `Q5_K`, with levels up to `greatest`.
#[inline(always)]
fn six_bits(
    values: &[f32; K_BLOCK],
    weights: &[f32; K_BLOCK],
    (d, dmin, scales): ([u8; 2], [u8; 2], &[u8; 12]),
    greatest: f32,
) -> (SixBitScales, Lanes<f32, 8, 32>) {
    let numbers: [(u8, u8); 8] = std::array::from_fn(|group| scale_and_minimum(scales, group));
    let stored = Stored {
        d: from_half(d),
        dmin: from_half(dmin),
        sc: numbers.map(|(sc, _)| i32::from(sc)),
        m: numbers.map(|(_, m)| i32::from(m)),
    };
    let nearest = |value: f32| nearest_level(value, 0.0, greatest);
    let found = improved::<8, 32>(values, weights, stored, Bounds { sc: (0, 63), m: 63 }, nearest);
    let scales = SixBitScales::new(found.d, found.dmin, found.sc.map(|sc| sc as u8), found.m.map(|m| m as u8));
    let (step, shift) = scales.steps();
    let mut levels = [[0.0; 8]; 32];
    round_again(&side_by_side(values), &step, &shift, greatest, &mut levels);
    (scales, levels)
}

impl Refine<K_BLOCK> for BlockQ4K {
    #[inline(always)]
    fn refined(&self, values: &[f32; K_BLOCK], weights: &[f32; K_BLOCK]) -> Self {
        let (scales, levels) = six_bits(values, weights, (self.d, self.dmin, &self.scales), 15.0);
        scales.four_bit_block(&levels)
    }
}

impl Refine<K_BLOCK> for BlockQ5K {
    #[inline(always)]
    fn refined(&self, values: &[f32; K_BLOCK], weights: &[f32; K_BLOCK]) -> Self {
        let (scales, levels) = six_bits(values, weights, (self.d, self.dmin, &self.scales), 31.0);
        scales.five_bit_block(&levels)
    }
}

impl Refine<K_BLOCK> for BlockQ6K {
    #[inline(always)]
    fn refined(&self, values: &[f32; K_BLOCK], weights: &[f32; K_BLOCK]) -> Self {
        let stored = Stored { d: from_half(self.d), dmin: 0.0, sc: self.scales.map(i32::from), m: [0; 16] };
        let nearest = |value: f32| nearest_level(value, -32.0, 31.0);
        let found = improved::<16, 16>(values, weights, stored, Bounds { sc: (-128, 127), m: 0 }, nearest);
        six_bit_levels(&side_by_side(values), to_half(found.d), found.sc.map(|sc| sc as i8), [[32.0; 16]; 16])
    }
}

impl Refine<K_BLOCK> for BlockQ3K {
    #[inline(always)]
    fn refined(&self, values: &[f32; K_BLOCK], weights: &[f32; K_BLOCK]) -> Self {
        let stored = Stored { d: from_half(self.d), dmin: 0.0, sc: three_bit_scales(&self.scales), m: [0; 16] };
        let nearest = |value: f32| nearest_level(value, -4.0, 3.0);
        let found = improved::<16, 16>(values, weights, stored, Bounds { sc: (-32, 31), m: 0 }, nearest);
        three_bit_block(&side_by_side(values), found.d, found.sc, [[4.0; 16]; 16])
    }
}

impl Refine<K_BLOCK> for BlockQ2K {
    #[inline(always)]
    fn refined(&self, values: &[f32; K_BLOCK], weights: &[f32; K_BLOCK]) -> Self {
        let stored = Stored {
            d: from_half(self.d),
            dmin: from_half(self.dmin),
            sc: self.scales.map(|sc| i32::from(sc & 0x0F)),
            m: self.scales.map(|sc| i32::from(sc >> 4)),
        };
        let nearest = |value: f32| nearest_level(value, 0.0, 3.0);
        let found = improved::<16, 16>(values, weights, stored, Bounds { sc: (0, 15), m: 15 }, nearest);
        let scales = std::array::from_fn(|group| found.sc[group] as u8 | (found.m[group] as u8) << 4);
        two_bit_block(&side_by_side(values), (found.d, found.dmin), scales, [[0.0; 16]; 16])
    }
}

impl Refine<K_BLOCK> for BlockIq4Xs {
    #[inline(always)]
    fn refined(&self, values: &[f32; K_BLOCK], weights: &[f32; K_BLOCK]) -> Self {
        let high = u16::from_le_bytes(self.scales_h);
        let sc = |group: usize| {
            let low = i32::from(self.scales_l[group / 2] >> (group % 2 * 4) & 0x0F);
            (low | i32::from(high >> (2 * group) & 3) << 4) - 32
        };
        let stored = Stored { d: from_half(self.d), dmin: 0.0, sc: std::array::from_fn(sc), m: [0; 8] };
        let found = improved::<8, 32>(values, weights, stored, Bounds { sc: (-32, 31), m: 0 }, nearest_nonlinear);
        block_with_steps(values, found.d, &found.sc)
    }
}
