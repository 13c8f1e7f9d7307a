//! The product of two small blocks, `C (=|+=) A B`, from which attention is built.
//!
//! Every element of `C` is one chain of fused additions in the order of the depth, whatever [tile](super::tiling) it falls
//! into.

use super::tiling::{Tiles, each_tile};
use crate::ops::simd::{Operation, Simd};

/// What the sums start from.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Start<'a> {
    /// Zero: `C = A B`.
    Zero,
    /// The target: `C += A B`.
    Keep,
    /// The target, each row times its factor: `C = diag(factors) C + A B`.
    Scale(&'a [f32]),
}

/// One product: `rows x depth` times `depth x columns`.
pub(in crate::ops) struct BlockProduct<'a> {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) depth: usize,
    /// A multiple of the width of a vector.
    pub(in crate::ops) columns: usize,
    pub(in crate::ops) a: &'a [f32],
    /// Elements between rows of `A`.
    pub(in crate::ops) a_row: usize,
    /// Elements between columns of `A`.
    pub(in crate::ops) a_depth: usize,
    pub(in crate::ops) b: &'a [f32],
    /// Elements between rows of `B`.
    pub(in crate::ops) b_stride: usize,
    pub(in crate::ops) c: &'a mut [f32],
    /// Elements between rows of `C`.
    pub(in crate::ops) c_stride: usize,
    pub(in crate::ops) start: Start<'a>,
}

impl Operation for BlockProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        assert!(self.columns.is_multiple_of(S::WIDTH));
        assert!(self.c.len() >= (self.rows - 1) * self.c_stride + self.columns);
        if self.depth > 0 {
            assert!(self.a.len() > (self.rows - 1) * self.a_row + (self.depth - 1) * self.a_depth);
            assert!(self.b.len() >= (self.depth - 1) * self.b_stride + self.columns);
        }
        if let Start::Scale(factors) = self.start {
            assert!(factors.len() >= self.rows);
        }
        let extent = [self.rows, self.columns];
        // SAFETY: the assertions above hold for all rows, columns and depths.
        unsafe { each_tile(simd, &mut self, extent) };
    }
}

impl Tiles for BlockProduct<'_> {
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, row: usize, column: usize) {
        // SAFETY: the caller promises that all addresses lie inside `a`, `b` and `c`.
        unsafe {
            let mut sums = [[simd.splat(0.0); C]; R];
            let c = self.c.as_mut_ptr().add(row * self.c_stride + column);
            match self.start {
                Start::Zero => {}
                Start::Keep => {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (j, sum) in sums.iter_mut().enumerate() {
                            *sum = simd.load_at(c.add(r * self.c_stride + j * S::WIDTH));
                        }
                    }
                }
                Start::Scale(factors) => {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let factor = simd.splat(*factors.get_unchecked(row + r));
                        for (j, sum) in sums.iter_mut().enumerate() {
                            *sum = simd.mul(factor, simd.load_at(c.add(r * self.c_stride + j * S::WIDTH)));
                        }
                    }
                }
            }
            let mut a = self.a.as_ptr().wrapping_add(row * self.a_row);
            let mut b = self.b.as_ptr().wrapping_add(column);
            for _ in 0..self.depth {
                let mut vectors = [simd.splat(0.0); C];
                for (j, vector) in vectors.iter_mut().enumerate() {
                    *vector = simd.load_at(b.add(j * S::WIDTH));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat(*a.add(r * self.a_row));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.mul_add(factor, vector, *sum);
                    }
                }
                a = a.wrapping_add(self.a_depth);
                b = b.wrapping_add(self.b_stride);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    simd.store_at(c.add(r * self.c_stride + j * S::WIDTH), *sum);
                }
            }
        }
    }
}
