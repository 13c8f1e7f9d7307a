//! The product of two small blocks of integers in pairs, from which attention over [integers](super::integers) is built.
//!
//! The sums of a tile are exact, and so the same for any tile and any order.

use crate::ops::attention::{Tiles, each_tile};
use crate::ops::simd::{Operation, Simd};

/// What becomes of the sums.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// `C = diag(row_factors) A B diag(factors)`.
    Scores(&'a [f32]),
    /// `C = diag(factors) C + diag(row_factors) A B`.
    Outputs(&'a [f32]),
}

/// One product: `rows x 2 pairs` times `2 pairs x columns`.
pub(super) struct PairProduct<'a> {
    pub(super) rows: usize,
    pub(super) pairs: usize,
    /// A multiple of the width of a vector.
    pub(super) columns: usize,
    pub(super) a: &'a [u32],
    /// Words between rows of `A`.
    pub(super) a_row: usize,
    pub(super) row_factors: &'a [f32],
    pub(super) b: &'a [u32],
    /// Words between rows of `B`.
    pub(super) b_stride: usize,
    pub(super) c: &'a mut [f32],
    /// Elements between rows of `C`.
    pub(super) c_stride: usize,
    pub(super) target: Target<'a>,
}

impl Operation for PairProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Self { rows, pairs, columns, .. } = self;
        if rows == 0 || columns == 0 {
            return;
        }
        assert!(columns.is_multiple_of(S::WIDTH) && self.row_factors.len() >= rows);
        assert!(self.c.len() >= (rows - 1) * self.c_stride + columns);
        if pairs > 0 {
            assert!(self.a.len() >= (rows - 1) * self.a_row + pairs);
            assert!(self.b.len() >= (pairs - 1) * self.b_stride + columns);
        }
        match self.target {
            Target::Scores(factors) => assert!(factors.len() >= columns),
            Target::Outputs(factors) => assert!(factors.len() >= rows),
        }
        // SAFETY: the assertions above hold for all rows, columns and pairs.
        unsafe { each_tile(simd, &mut self, [rows, columns]) };
    }
}

impl Tiles for PairProduct<'_> {
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, row: usize, column: usize) {
        // SAFETY: the caller promises that all addresses lie inside `a`, `b`, `c` and the factors.
        unsafe {
            let mut sums = [[simd.splat_integer(0); C]; R];
            let mut a = self.a.as_ptr().wrapping_add(row * self.a_row);
            let mut b = self.b.as_ptr().wrapping_add(column);
            for _ in 0..self.pairs {
                let mut vectors = [simd.splat_integer(0); C];
                for (j, vector) in vectors.iter_mut().enumerate() {
                    *vector = simd.load_integers_at(b.add(j * S::WIDTH));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let pair = simd.splat_integer(*a.add(r * self.a_row));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.dot_pairs(pair, vector, *sum);
                    }
                }
                a = a.wrapping_add(1);
                b = b.wrapping_add(self.b_stride);
            }
            let c = self.c.as_mut_ptr().add(row * self.c_stride + column);
            for (r, sums) in sums.into_iter().enumerate() {
                let row_factor = simd.splat(*self.row_factors.get_unchecked(row + r));
                for (j, sum) in sums.into_iter().enumerate() {
                    let at = c.add(r * self.c_stride + j * S::WIDTH);
                    let sum = simd.to_floats(sum);
                    let value = match self.target {
                        Target::Scores(factors) => {
                            let factor = simd.load_at(factors.as_ptr().add(column + j * S::WIDTH));
                            simd.mul(simd.mul(sum, row_factor), factor)
                        }
                        Target::Outputs(factors) => {
                            let kept = simd.mul(simd.splat(*factors.get_unchecked(row + r)), simd.load_at(at));
                            simd.mul_add(sum, row_factor, kept)
                        }
                    };
                    simd.store_at(at, value);
                }
            }
        }
    }
}
