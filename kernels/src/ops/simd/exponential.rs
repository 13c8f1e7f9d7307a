//! Vectorised exponentials.
//!
//! `e^x = 2^n e^r` with `n` the nearest integer to `x / ln 2` and `r = x - n ln 2` (in two parts, so that `r` is exact
//! to the last bit); `e^r = 1 + r + r^2 q(r)` with a minimax polynomial `q` for `|r| <= ln 2 / 2`, relative error
//! 3.1e-9. `2^x` likewise with `2^f = 1 + f q(f)`, relative error 3.9e-9. The polynomials are the solutions of the
//! Remez exchange for the relative error, summed in pairs (Estrin) to shorten the chain of operations. Subnormal results and infinities are right; NaN gives NaN.

use super::Simd;

/// Where `e^x` is zero respectively infinite for certain.
const EXP_RANGE: (f32, f32) = (-104.0, 89.0);
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
const EXP: [f32; 5] = [0.499_999_93, 0.166_665_2, 0.041_668_387, 0.008_368_71, 0.001_381_461_3];

/// `e^x` of each element, error below 2 units in the last place.
#[inline(always)]
pub(in crate::ops) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let x = simd.min(simd.splat(EXP_RANGE.1), simd.max(simd.splat(EXP_RANGE.0), x));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    let r2 = simd.mul(r, r);
    let low = simd.mul_add(simd.splat(EXP[1]), r, simd.splat(EXP[0]));
    let high = simd.mul_add(simd.splat(EXP[3]), r, simd.splat(EXP[2]));
    let high = simd.mul_add(simd.splat(EXP[4]), r2, high);
    let q = simd.mul_add(high, r2, low);
    let p = simd.mul_add(r2, q, simd.add(simd.splat(1.0), r));
    simd.scale_by_power(p, n)
}

const EXP2_RANGE: (f32, f32) = (-150.0, 128.0);
const EXP2: [f32; 6] = [std::f32::consts::LN_2, 0.240_226_5, 0.055_502_974, 0.009_618_03, 0.001_341, 1.546_973_2e-4];

/// `2^x` of each element, error below 2 units in the last place; `2^0` is exactly 1.
#[inline(always)]
pub(in crate::ops) fn exp2<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let x = simd.min(simd.splat(EXP2_RANGE.1), simd.max(simd.splat(EXP2_RANGE.0), x));
    let n = simd.round(x);
    let f = simd.sub(x, n);
    let f2 = simd.mul(f, f);
    let low = simd.mul_add(simd.splat(EXP2[1]), f, simd.splat(EXP2[0]));
    let middle = simd.mul_add(simd.splat(EXP2[3]), f, simd.splat(EXP2[2]));
    let high = simd.mul_add(simd.splat(EXP2[5]), f, simd.splat(EXP2[4]));
    let q = simd.mul_add(simd.mul_add(high, f2, middle), f2, low);
    simd.scale_by_power(simd.mul_add(f, q, simd.splat(1.0)), n)
}
