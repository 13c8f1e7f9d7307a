//! Kernels in plain Rust: 4 rows x 8 outputs at a time, a multiplication and an addition for each product.

use super::kernel::{Ahead, Family, GROUP, Right, family, word_index};
use crate::panels::PANEL;

/// Outputs whose sums are kept in registers.
const LANES: usize = 8;

/// 1 to 4 rows; 32 outputs in a wide panel, 16 in a narrow one.
pub(super) static FAMILY: Family = family!(32, 16; 1 2 3 4);

/// See [`Micro`](super::kernel::Micro); `W` outputs.
unsafe fn multiply<const R: usize, const W: usize, const INTERLEAVED: bool>(
    a: *const u32,
    Right { panel: b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    // SAFETY: the packed buffers hold this many words, as the caller says; f32 and u32 have one layout.
    let (a, b) = unsafe {
        (
            std::slice::from_raw_parts(a.cast::<f32>(), groups * GROUP * R),
            std::slice::from_raw_parts(b.cast::<f32>(), groups * GROUP * W),
        )
    };
    for first in (0..W).step_by(LANES) {
        let mut sums = [[0.0_f32; LANES]; R];
        for (a, b) in a.chunks_exact(GROUP * R).zip(b.chunks_exact(GROUP * W)) {
            for j in 0..GROUP {
                let columns = &b[j * W + first..][..LANES];
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = a[word_index::<R, INTERLEAVED>(r, j)];
                    for (sum, &column) in sum.iter_mut().zip(columns) {
                        *sum += x * column;
                    }
                }
            }
        }
        // SAFETY: inside the block that the caller grants.
        unsafe { store(&sums, c.add(first), c_stride, add) };
    }
}

/// See [`Micro`](super::kernel::Micro); the even input of each pair first, then the odd one.
unsafe fn multiply_widened<const R: usize>(
    a: *const u32,
    Right { panel: b, .. }: Right,
    groups: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
    _ahead: Ahead,
) {
    // SAFETY: the packed buffers hold this many words, as the caller says; f32 and u32 have one layout.
    let (a, b) = unsafe {
        (
            std::slice::from_raw_parts(a.cast::<f32>(), groups * GROUP * R),
            std::slice::from_raw_parts(b, groups * GROUP / 2 * PANEL),
        )
    };
    for first in (0..PANEL).step_by(LANES) {
        let mut sums = [[0.0_f32; LANES]; R];
        for (a, b) in a.chunks_exact(GROUP * R).zip(b.chunks_exact(GROUP / 2 * PANEL)) {
            for j in 0..GROUP / 2 {
                let pairs = &b[j * PANEL + first..][..LANES];
                for (r, sum) in sums.iter_mut().enumerate() {
                    let (even, odd) = (a[r * GROUP + 2 * j], a[r * GROUP + 2 * j + 1]);
                    for (sum, &pair) in sum.iter_mut().zip(pairs) {
                        *sum += even * f32::from_bits(pair << 16);
                        *sum += odd * f32::from_bits(pair & 0xffff_0000);
                    }
                }
            }
        }
        // SAFETY: inside the block that the caller grants.
        unsafe { store(&sums, c.add(first), c_stride, add) };
    }
}

/// Writes or adds the sums of a part of a block.
///
/// # Safety
/// `c` holds `R` rows of [`LANES`] at its stride.
unsafe fn store<const R: usize>(sums: &[[f32; LANES]; R], c: *mut f32, c_stride: usize, add: bool) {
    for (r, sum) in sums.iter().enumerate() {
        for (v, &value) in sum.iter().enumerate() {
            // SAFETY: inside the block.
            unsafe {
                let place = c.add(r * c_stride + v);
                *place = if add { *place + value } else { value };
            }
        }
    }
}
