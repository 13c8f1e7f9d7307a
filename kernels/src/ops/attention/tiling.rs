//! How a small product is cut into tiles: the rows of a tile share each load of a row of `B`, and its sums stay in registers.

use crate::ops::simd::Simd;

/// A product that is computed tile by tile.
pub(in crate::ops) trait Tiles {
    /// Computes `R` rows from `row` and `C` vectors from `column`.
    ///
    /// # Safety
    ///
    /// The tile lies inside the rows and columns for which the product's operands were checked.
    unsafe fn tile<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, row: usize, column: usize);
}

/// Computes every tile of the first rows and columns; the columns are whole vectors.
///
/// # Safety
///
/// The product's operands were checked for so many rows and columns.
#[inline(always)]
pub(in crate::ops) unsafe fn each_tile<S: Simd>(simd: S, product: &mut impl Tiles, [rows, columns]: [usize; 2]) {
    let mut column = 0;
    // SAFETY: the panels stay inside the columns.
    unsafe {
        if S::WIDTH == 16 {
            while columns - column >= 4 * S::WIDTH {
                panel::<S, 4>(simd, product, rows, column);
                column += 4 * S::WIDTH;
            }
        }
        while columns - column >= 2 * S::WIDTH {
            panel::<S, 2>(simd, product, rows, column);
            column += 2 * S::WIDTH;
        }
        if columns > column {
            panel::<S, 1>(simd, product, rows, column);
        }
    }
}

/// `C` vectors from `column` of all rows, in tiles of nearly one size.
///
/// # Safety
///
/// As [`each_tile`], and the columns are among them.
#[inline(always)]
unsafe fn panel<S: Simd, const C: usize>(simd: S, product: &mut impl Tiles, rows: usize, column: usize) {
    let mut row = 0;
    while row < rows {
        let count = match rows - row {
            1 => 1,
            2 | 4 => 2,
            3 | 5 | 9 => 3,
            7 | 8 => 4,
            _ => 6,
        };
        // SAFETY: the tile ends at `rows` at the latest.
        unsafe {
            match count {
                1 => product.tile::<S, 1, C>(simd, row, column),
                2 => product.tile::<S, 2, C>(simd, row, column),
                3 => product.tile::<S, 3, C>(simd, row, column),
                4 => product.tile::<S, 4, C>(simd, row, column),
                _ => product.tile::<S, 6, C>(simd, row, column),
            }
        }
        row += count;
    }
}
