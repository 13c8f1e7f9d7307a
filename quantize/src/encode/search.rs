//! The searches for scales of the k-quants: for each group the grid of levels with the least weighted error.
//!
//! Each function works on `L` groups side by side and gives for each of them the result, to the bit, of ggml's search
//! over that group alone (`make_qkx2_quants` and `make_qkx3_quants`, `make_qx_quants`, `make_qp_quants`,
//! `make_q3_quants`).

use super::lanes::Lanes;
use super::nearest::{nearest_integer, nearest_level};

/// Below this largest magnitude a group counts as zeros.
pub(super) const ZERO_MAGNITUDE: f32 = 1e-15;

/// Scales and levels of `L` groups: `x ~ scale * level`.
pub(super) struct Scaled<const L: usize, const N: usize> {
    pub(super) scale: [f32; L],
    pub(super) levels: Lanes<f32, L, N>,
}

/// Scales, minima and levels of `L` groups: `x ~ scale * level - minimum`.
pub(super) struct Shifted<const L: usize, const N: usize> {
    pub(super) scale: [f32; L],
    pub(super) minimum: [f32; L],
    pub(super) levels: Lanes<f32, L, N>,
}

/// The grid of a search with a minimum.
pub(super) struct Grid {
    /// Greatest level.
    pub(super) greatest: f32,
    /// Levels added to `greatest` in the first trial.
    pub(super) first: f32,
    /// Levels added from trial to trial.
    pub(super) delta: f32,
    /// Trials after the first.
    pub(super) steps: i32,
}

/// The inverse of a range too small to have one counts as 0, which gives level 0 to all as infinity would.
#[inline(always)]
fn finite_or_zero(inverse: f32) -> f32 {
    if inverse.abs() <= f32::MAX { inverse } else { 0.0 }
}

/// Searches scale and minimum: for each trial grid the weighted least-squares line through the rounded levels, kept
/// when its weighted error (squared, or absolute where `ABSOLUTE`) is the least so far.
#[inline(always)]
pub(super) fn with_minimum<const L: usize, const N: usize, const ABSOLUTE: bool>(
    x: &Lanes<f32, L, N>,
    weights: &Lanes<f32, L, N>,
    grid: &Grid,
) -> Shifted<L, N> {
    let penalty = |difference: f32| {
        if ABSOLUTE { difference.abs() } else { difference * difference }
    };

    let mut minimum = x[0];
    let mut maximum = x[0];
    let mut sum_w = weights[0];
    let mut sum_x = [0.0; L];
    for l in 0..L {
        sum_x[l] = sum_w[l] * x[0][l];
    }
    for i in 1..N {
        for l in 0..L {
            let (x, w) = (x[i][l], weights[i][l]);
            minimum[l] = if x < minimum[l] { x } else { minimum[l] };
            maximum[l] = if x > maximum[l] { x } else { maximum[l] };
            sum_w[l] += w;
            sum_x[l] += w * x;
        }
    }
    let mut flat = [false; L];
    let mut scale = [0.0; L];
    let mut inverse = [0.0; L];
    for l in 0..L {
        minimum[l] = if minimum[l] > 0.0 { 0.0 } else { minimum[l] };
        flat[l] = maximum[l] == minimum[l];
        let per_unit = grid.greatest / (maximum[l] - minimum[l]);
        inverse[l] = finite_or_zero(per_unit);
        scale[l] = 1.0 / per_unit;
    }
    let least = minimum;

    let mut levels = [[0.0; L]; N];
    let mut best_error = [0.0; L];
    for i in 0..N {
        for l in 0..L {
            let level = nearest_level(inverse[l] * (x[i][l] - least[l]), 0.0, grid.greatest);
            levels[i][l] = level;
            let difference = scale[l] * level + least[l] - x[i][l];
            best_error[l] += weights[i][l] * penalty(difference);
        }
    }

    let mut trial = [[0.0; L]; N];
    for step in 0..=grid.steps {
        let trial_greatest = grid.first + grid.delta * step as f32 + grid.greatest;
        // The trials start from the current minimum, which an earlier trial may have moved.
        for l in 0..L {
            inverse[l] = finite_or_zero(trial_greatest / (maximum[l] - minimum[l]));
        }
        let mut sum_l = [0.0; L];
        let mut sum_l2 = [0.0; L];
        let mut sum_xl = [0.0; L];
        for i in 0..N {
            for l in 0..L {
                let level = nearest_level(inverse[l] * (x[i][l] - minimum[l]), 0.0, grid.greatest);
                trial[i][l] = level;
                let w = weights[i][l];
                sum_l[l] += w * level;
                sum_l2[l] += w * level * level;
                sum_xl[l] += w * level * x[i][l];
            }
        }
        let mut solvable = [false; L];
        let mut trial_scale = [0.0; L];
        let mut trial_minimum = [0.0; L];
        for l in 0..L {
            let determinant = sum_w[l] * sum_l2[l] - sum_l[l] * sum_l[l];
            solvable[l] = determinant > 0.0;
            let line_scale = (sum_w[l] * sum_xl[l] - sum_x[l] * sum_l[l]) / determinant;
            let line_minimum = (sum_l2[l] * sum_x[l] - sum_l[l] * sum_xl[l]) / determinant;
            // A minimum above zero is not stored: the line then goes through the origin.
            let through_origin = line_minimum > 0.0;
            trial_scale[l] = if through_origin { sum_xl[l] / sum_l2[l] } else { line_scale };
            trial_minimum[l] = if through_origin { 0.0 } else { line_minimum };
        }
        let mut error = [0.0; L];
        for i in 0..N {
            for l in 0..L {
                let difference = trial_scale[l] * trial[i][l] + trial_minimum[l] - x[i][l];
                error[l] += weights[i][l] * penalty(difference);
            }
        }
        let mut better = [false; L];
        for l in 0..L {
            better[l] = solvable[l] && error[l] < best_error[l];
            best_error[l] = if better[l] { error[l] } else { best_error[l] };
            scale[l] = if better[l] { trial_scale[l] } else { scale[l] };
            minimum[l] = if better[l] { trial_minimum[l] } else { minimum[l] };
        }
        keep(&mut levels, &trial, better);
    }

    let mut negated = [0.0; L];
    for l in 0..L {
        scale[l] = if flat[l] { 0.0 } else { scale[l] };
        negated[l] = -(if flat[l] { least[l] } else { minimum[l] });
    }
    keep(&mut levels, &[[0.0; L]; N], flat);
    Shifted { scale, minimum: negated, levels }
}

/// Searches the scale of levels `-half..half` with the least weighted error; levels come out from 0.
#[inline(always)]
pub(super) fn symmetric<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    weights: &Lanes<f32, L, N>,
    half: f32,
) -> Scaled<L, N> {
    let (largest, magnitude) = largest(x);
    let mut inverse = [0.0; L];
    for l in 0..L {
        inverse[l] = -half / largest[l];
    }
    let mut levels = [[0.0; L]; N];
    let (sum_lx, sum_l2) = weigh(x, weights, &inverse, half, &mut levels);
    let mut scale = [0.0; L];
    let mut best = [0.0; L];
    for l in 0..L {
        scale[l] = if sum_l2[l] == 0.0 { 0.0 } else { sum_lx[l] / sum_l2[l] };
        best[l] = scale[l] * sum_lx[l];
    }
    let mut trial = [[0.0; L]; N];
    for step in (-9..=9).filter(|step| *step != 0) {
        let numerator = -(half + 0.1 * step as f32);
        for l in 0..L {
            inverse[l] = numerator / largest[l];
        }
        let (sum_lx, sum_l2) = weigh(x, weights, &inverse, half, &mut trial);
        let mut better = [false; L];
        for l in 0..L {
            better[l] = sum_l2[l] > 0.0 && sum_lx[l] * sum_lx[l] > best[l] * sum_l2[l];
            let trial_scale = sum_lx[l] / sum_l2[l];
            scale[l] = if better[l] { trial_scale } else { scale[l] };
            best[l] = if better[l] { trial_scale * sum_lx[l] } else { best[l] };
        }
        keep(&mut levels, &trial, better);
    }
    let mut zero = [false; L];
    for l in 0..L {
        zero[l] = magnitude[l] < ZERO_MAGNITUDE;
        scale[l] = if zero[l] { 0.0 } else { scale[l] };
    }
    keep(&mut levels, &[[0.0; L]; N], zero);
    Scaled { scale, levels }
}

/// Finds the scale of levels `-half..half` by moving one level at a time while the weighted fit gets better, in at
/// most five rounds; levels come out from 0.
#[inline(always)]
pub(super) fn refined<const L: usize, const N: usize>(x: &Lanes<f32, L, N>, half: f32) -> Scaled<L, N> {
    let (largest, magnitude) = largest(x);
    let mut inverse = [0.0; L];
    for l in 0..L {
        inverse[l] = -half / largest[l];
    }
    let mut levels = [[0.0; L]; N];
    let (mut sum_lx, mut sum_l2) = weigh(x, &squares(x), &inverse, half, &mut levels);
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            for l in 0..L {
                let x = x[i][l];
                let w = x * x;
                let level = levels[i][l] - half;
                let mut without_lx = sum_lx[l] - w * x * level;
                let mut without_l2 = sum_l2[l] - w * level * level;
                // The quotient may be of any size: rounded first and bounded afterwards.
                let moved = (nearest_integer(x * without_l2 / without_lx) as f32).min(half - 1.0).max(-half);
                let candidate = without_lx > 0.0 && moved + half != levels[i][l];
                without_lx += w * x * moved;
                without_l2 += w * moved * moved;
                let better = candidate
                    && without_l2 > 0.0
                    && without_lx * without_lx * sum_l2[l] > sum_lx[l] * sum_lx[l] * without_l2;
                levels[i][l] = if better { moved + half } else { levels[i][l] };
                sum_lx[l] = if better { without_lx } else { sum_lx[l] };
                sum_l2[l] = if better { without_l2 } else { sum_l2[l] };
                changed |= better;
            }
        }
        if !changed {
            break;
        }
    }
    let mut scale = [0.0; L];
    let mut zero = [false; L];
    for l in 0..L {
        zero[l] = magnitude[l] < ZERO_MAGNITUDE;
        scale[l] = if !zero[l] && sum_l2[l] > 0.0 { sum_lx[l] / sum_l2[l] } else { 0.0 };
    }
    keep(&mut levels, &[[0.0; L]; N], zero);
    Scaled { scale, levels }
}

/// Searches the scale of levels `0..=greatest` of numbers that are themselves scales or minima, with the least weighted
/// error: trial scales first, then one level at a time while the fit gets better, in at most five rounds.
///
/// Levels wrap to a byte as ggml stores them: a number below zero, which no grid here has, becomes a large level.
#[inline(always)]
pub(super) fn positive<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    weights: &Lanes<f32, L, N>,
    greatest: f32,
) -> Scaled<L, N> {
    let mut maximum = [0.0; L];
    for x in x {
        for l in 0..L {
            maximum[l] = if x[l] > maximum[l] { x[l] } else { maximum[l] };
        }
    }
    let mut inverse = maximum.map(|maximum| greatest / maximum);
    let mut best_error = [0.0; L];
    let scale = inverse.map(|inverse| 1.0 / inverse);
    for i in 0..N {
        for l in 0..L {
            let level = byte_level(nearest_integer(inverse[l] * x[i][l]));
            let difference = x[i][l] - scale[l] * level;
            best_error[l] += weights[i][l] * difference * difference;
        }
    }
    for step in (-4..=4).filter(|step| *step != 0) {
        let numerator = 0.1 * step as f32 + greatest;
        let mut error = [0.0; L];
        let trial = maximum.map(|maximum| numerator / maximum);
        let scale = trial.map(|trial| 1.0 / trial);
        for i in 0..N {
            for l in 0..L {
                let level = bounded_level(trial[l] * x[i][l], greatest);
                let difference = x[i][l] - scale[l] * level;
                error[l] += weights[i][l] * difference * difference;
            }
        }
        for l in 0..L {
            let better = error[l] < best_error[l];
            best_error[l] = if better { error[l] } else { best_error[l] };
            inverse[l] = if better { trial[l] } else { inverse[l] };
        }
    }
    let mut levels = [[0.0; L]; N];
    let (mut sum_lx, mut sum_l2) = ([0.0; L], [0.0; L]);
    for i in 0..N {
        for l in 0..L {
            let (x, w) = (x[i][l], weights[i][l]);
            let level = bounded_level(inverse[l] * x, greatest);
            levels[i][l] = byte_level(level as i32);
            sum_lx[l] += w * x * level;
            sum_l2[l] += w * level * level;
        }
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            for l in 0..L {
                let (x, w, level) = (x[i][l], weights[i][l], levels[i][l]);
                let mut without_lx = sum_lx[l] - w * x * level;
                let mut without_l2 = sum_l2[l] - w * level * level;
                let moved = bounded_level(x * without_l2 / without_lx, greatest);
                let candidate = without_lx > 0.0 && without_l2 > 0.0 && moved != level;
                without_lx += w * x * moved;
                without_l2 += w * moved * moved;
                let better = candidate && without_lx * without_lx * sum_l2[l] > sum_lx[l] * sum_lx[l] * without_l2;
                levels[i][l] = if better { byte_level(moved as i32) } else { level };
                sum_lx[l] = if better { without_lx } else { sum_lx[l] };
                sum_l2[l] = if better { without_l2 } else { sum_l2[l] };
                changed |= better;
            }
        }
        if !changed {
            break;
        }
    }
    let mut scale = [0.0; L];
    let mut zero = [false; L];
    for l in 0..L {
        zero[l] = maximum[l] < ZERO_MAGNITUDE;
        scale[l] = if !zero[l] && sum_l2[l] > 0.0 { sum_lx[l] / sum_l2[l] } else { 0.0 };
    }
    keep(&mut levels, &[[0.0; L]; N], zero);
    Scaled { scale, levels }
}

/// The nearest integer, no greater than `greatest`.
#[inline(always)]
fn bounded_level(value: f32, greatest: f32) -> f32 {
    (nearest_integer(value) as f32).min(greatest)
}

/// What is left of a level in a byte.
#[inline(always)]
fn byte_level(level: i32) -> f32 {
    (level & 0xFF) as f32
}

/// The element of the largest magnitude of each group (the first of several) and that magnitude.
#[inline(always)]
pub(super) fn largest<const L: usize, const N: usize>(x: &Lanes<f32, L, N>) -> ([f32; L], [f32; L]) {
    let mut largest = [0.0; L];
    let mut magnitude = [0.0; L];
    for x in x {
        for l in 0..L {
            let here = x[l].abs();
            largest[l] = if here > magnitude[l] { x[l] } else { largest[l] };
            magnitude[l] = if here > magnitude[l] { here } else { magnitude[l] };
        }
    }
    (largest, magnitude)
}

/// The squares of the values: the weights of the searches without an importance matrix.
#[inline(always)]
pub(super) fn squares<const L: usize, const N: usize>(x: &Lanes<f32, L, N>) -> Lanes<f32, L, N> {
    let mut squares = [[0.0; L]; N];
    for i in 0..N {
        for l in 0..L {
            squares[i][l] = x[i][l] * x[i][l];
        }
    }
    squares
}

/// Rounds to levels (stored from 0) and sums `weight x level` and `weight level^2`.
#[inline(always)]
fn weigh<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    weights: &Lanes<f32, L, N>,
    inverse: &[f32; L],
    half: f32,
    levels: &mut Lanes<f32, L, N>,
) -> ([f32; L], [f32; L]) {
    let mut sum_lx = [0.0; L];
    let mut sum_l2 = [0.0; L];
    for i in 0..N {
        for l in 0..L {
            let (x, w) = (x[i][l], weights[i][l]);
            let level = nearest_level(inverse[l] * x, -half, half - 1.0);
            levels[i][l] = level + half;
            sum_lx[l] += w * x * level;
            sum_l2[l] += w * level * level;
        }
    }
    (sum_lx, sum_l2)
}

/// Takes the levels of `trial` for the groups where it is `better`.
#[inline(always)]
fn keep<const L: usize, const N: usize>(levels: &mut Lanes<f32, L, N>, trial: &Lanes<f32, L, N>, better: [bool; L]) {
    if better.iter().any(|better| *better) {
        for i in 0..N {
            for l in 0..L {
                levels[i][l] = if better[l] { trial[i][l] } else { levels[i][l] };
            }
        }
    }
}
