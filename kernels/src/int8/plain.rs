//! The product in plain Rust: what the other microkernels are held to.

use super::kernel::{Factor, Kernels, Kind, OFFSET, Right, WORDS, block_lines, group_words, kernels};
use crate::block_product::Second;
use crate::buffer::Line;
use crate::panels::PANEL;

/// 1 to 6 rows by 32 outputs.
pub(super) static KERNELS: Kernels = kernels!(multiply);

/// See [`Micro`](super::kernel::Micro).
unsafe fn multiply<K: Kind, const R: usize>(
    rows: *const u32,
    right: Right,
    blocks: usize,
    y: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the group and the panel are as long as the caller says.
    let (rows, panel) = unsafe {
        let panel = std::slice::from_raw_parts(right.panel, blocks * block_lines(K::SECOND));
        (std::slice::from_raw_parts(rows, blocks * group_words(R)), bytemuck::cast_slice::<Line, u32>(panel))
    };
    for r in 0..R {
        for output in 0..PANEL {
            let mut sum = 0.0_f32;
            let blocks = panel.chunks_exact(block_lines(K::SECOND) * 16);
            for (rows, panel) in rows.chunks_exact(group_words(R)).zip(blocks) {
                sum = block::<K, R>(rows, panel, OFFSET >> right.shift, r, output, sum);
            }
            // SAFETY: inside the block of the result.
            let place = unsafe { &mut *y.add(r * stride + output) };
            *place = if add { *place + sum } else { sum };
        }
    }
}

/// Adds the products of a block.
#[inline(always)]
fn block<K: Kind, const R: usize>(rows: &[u32], panel: &[u32], offset: i32, r: usize, output: usize, sum: f32) -> f32 {
    let offset = if K::SECOND == Second::Addend { 0 } else { offset };
    let dot = |words: std::ops::Range<usize>| -> f32 {
        let product = |word: usize| -> i32 {
            let weights = panel[word * PANEL + output].to_ne_bytes();
            let numbers = rows[r * WORDS + word].to_ne_bytes();
            weights.iter().zip(numbers).map(|(&w, x)| (i32::from(w) - offset) * i32::from(x as i8)).sum()
        };
        words.map(product).sum::<i32>() as f32
    };
    let factor = |factor: Factor| f32::from_bits(rows[(WORDS + factor as usize) * R + r]);
    let scale = |line: usize| f32::from_bits(panel[line * 16 + output]);
    let (first, second) = (2 * WORDS, 2 * WORDS + 2);
    match K::SECOND {
        Second::None => dot(0..WORDS).mul_add(scale(first) * factor(Factor::Scale), sum),
        Second::Addend => {
            let sum = dot(0..WORDS).mul_add(scale(first) * factor(Factor::Scale), sum);
            scale(second).mul_add(factor(Factor::ScaledSum), sum)
        }
        Second::Scale => {
            let sum = dot(0..WORDS / 2).mul_add(scale(first) * factor(Factor::Scale), sum);
            dot(WORDS / 2..WORDS).mul_add(scale(second) * factor(Factor::Scale), sum)
        }
    }
}
