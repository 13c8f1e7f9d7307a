//! The product of some rows with a page, `C (=|+=) A B`, a word of depth at a time.

use std::marker::PhantomData;

use super::cell::Cell;
use crate::ops::simd::{Operation, Simd};

/// One product: `rows x depth` times `depth x columns`. Every element of `C` is one chain of additions in the order of
/// the depth.
pub(super) struct PageProduct<'a, W> {
    pub(super) rows: usize,
    /// Words of depth.
    pub(super) depth: usize,
    /// A multiple of the width of a vector.
    pub(super) columns: usize,
    pub(super) a: &'a [f32],
    /// Words between rows of `A`.
    pub(super) a_stride: usize,
    pub(super) b: &'a [f32],
    /// Words between depths of `B`.
    pub(super) b_stride: usize,
    pub(super) c: &'a mut [f32],
    /// Elements between rows of `C`.
    pub(super) c_stride: usize,
    /// `C` times a factor for each row is what the sums begin with; zero where there are none.
    pub(super) factors: Option<&'a [f32]>,
    pub(super) cell: PhantomData<W>,
}

impl<W: Cell> Operation for PageProduct<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        assert!(self.columns.is_multiple_of(S::WIDTH));
        assert!(self.c.len() >= (self.rows - 1) * self.c_stride + self.columns);
        if self.depth > 0 {
            assert!(self.a.len() >= (self.rows - 1) * self.a_stride + self.depth);
            assert!(self.b.len() >= (self.depth - 1) * self.b_stride + self.columns);
        }
        assert!(self.factors.is_none_or(|factors| factors.len() >= self.rows));
        let mut column = 0;
        // SAFETY: the assertions above hold for all rows, columns and depths, and the panels stay inside them.
        unsafe {
            if S::WIDTH == 16 {
                while self.columns - column >= 4 * S::WIDTH {
                    self.panel::<S, 4>(simd, column);
                    column += 4 * S::WIDTH;
                }
            }
            while self.columns - column >= 2 * S::WIDTH {
                self.panel::<S, 2>(simd, column);
                column += 2 * S::WIDTH;
            }
            if self.columns > column {
                self.panel::<S, 1>(simd, column);
            }
        }
    }
}

impl<W: Cell> PageProduct<'_, W> {
    /// Columns `column..column + C * WIDTH` of all rows, in tiles of nearly one size.
    ///
    /// # Safety
    ///
    /// The assertions of `run` hold, and the columns lie inside `self.columns`.
    #[inline(always)]
    unsafe fn panel<S: Simd, const C: usize>(&mut self, simd: S, column: usize) {
        let mut row = 0;
        // SAFETY: rows stay below `self.rows`.
        unsafe {
            while row < self.rows {
                row += match self.rows - row {
                    1 => self.tile::<S, 1, C>(simd, row, column),
                    2 | 4 => self.tile::<S, 2, C>(simd, row, column),
                    3 | 5 | 9 => self.tile::<S, 3, C>(simd, row, column),
                    7 | 8 => self.tile::<S, 4, C>(simd, row, column),
                    _ => self.tile::<S, 6, C>(simd, row, column),
                };
            }
        }
    }

    /// `R` rows from `row` and `C` vectors from `column`; gives `R`.
    ///
    /// # Safety
    ///
    /// The assertions of `run` hold, and the tile lies inside `self.rows` and `self.columns`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, row: usize, column: usize) -> usize {
        // SAFETY: the caller promises that all addresses lie inside `a`, `b` and `c`.
        unsafe {
            let mut sums = [[simd.splat(0.0); C]; R];
            let c = self.c.as_mut_ptr().add(row * self.c_stride + column);
            if let Some(factors) = self.factors {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat(*factors.get_unchecked(row + r));
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.mul(factor, simd.load_at(c.add(r * self.c_stride + j * S::WIDTH)));
                    }
                }
            }
            let mut a = self.a.as_ptr().wrapping_add(row * self.a_stride);
            let mut b = self.b.as_ptr().wrapping_add(column);
            for _ in 0..self.depth {
                let mut vectors = [simd.splat(0.0); C];
                for (j, vector) in vectors.iter_mut().enumerate() {
                    *vector = simd.load_at(b.add(j * S::WIDTH));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let word = simd.splat(*a.add(r * self.a_stride));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = W::multiply(simd, word, vector, *sum);
                    }
                }
                a = a.wrapping_add(1);
                b = b.wrapping_add(self.b_stride);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    simd.store_at(c.add(r * self.c_stride + j * S::WIDTH), *sum);
                }
            }
        }
        R
    }
}
