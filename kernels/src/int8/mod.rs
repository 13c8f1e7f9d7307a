//! Products of many rows with weights of 8 bits, for batches, which are bound by arithmetic.
//!
//! The values of a file's blocks are laid out anew as bytes with a scale for each 32 inputs ([`Int8Matrix`]); nothing of
//! them is rounded. Activations are rounded to 8 bits with a scale for each 32 ([`Int8Rows`]). `VPDPBUSD` multiplies twice as
//! many numbers as `VDPBF16PS` does in the same time, and the bytes are half of bf16.
//!
//! For each block of 32 inputs, in order, the sum of the products of its numbers, which is exact, is multiplied by both
//! scales and added to the element by one fused multiplication and addition; a type with minima then adds the minimum times
//! the sum of the activations likewise. So the bits are the same on every instruction set, for any number of rows and
//! threads.
//!
//! - `matrix`: the weights; `rows`: the activations
//! - `kernel`: what a microkernel is; `plain`, `avx2`, `avx512`: the microkernels

// Plain loops are compiled anew for each set of target features, which needs their bodies in the callers.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernel;
mod matrix;
mod plain;
mod rows;
#[cfg(test)]
mod tests;

pub use self::matrix::Int8Matrix;
pub use self::rows::Int8Rows;

use std::ops::Range;
use std::sync::OnceLock;

use self::kernel::{Instructions, MOST_ROWS, Right, WORDS, group_words};
use self::matrix::Panel;
use crate::buffer::SharedMut;
use crate::panels::PANEL;
use crate::{Accumulate, InstructionSet, parallel};

/// Activations that meet a panel in one go: half of a second-level cache of 1 MiB.
const ACTIVATION_BYTES: usize = 512 * 1024;
/// Estimated cycles below which another thread is not worth waking.
const TASK_CYCLES: usize = 20_000;
/// Tasks for each thread when there is work enough, so that a thread that is held up does not hold up the call.
const TASKS_A_THREAD: usize = 4;

/// Whether products of 8 bits are faster on this CPU than those of bf16: where it multiplies vectors of bytes and has no AMX,
/// whose bf16 tiles are faster still.
pub fn int8_is_fast() -> bool {
    let isa = InstructionSet::detect();
    match isa {
        InstructionSet::Portable | InstructionSet::Amx => false,
        InstructionSet::Avx2 => true,
        // Without `VPDPBUSD` bytes have registers of half the width.
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => Instructions::best(isa).has_vpdpbusd(),
    }
}

/// `y[m, rows] (=|+=) x[m, columns] W^T` with activations of 8 bits.
///
/// Row `i` of the result depends on row `i` of `x` alone: not on `m`, nor on the number of threads, nor on the instruction
/// set.
///
/// # Panics
/// If the columns differ, or the length of `y` is not `x.rows() * w.rows()`.
pub fn matmul_int8(x: &Int8Rows, w: &Int8Matrix, y: &mut [f32], accumulate: Accumulate) {
    static BEST: OnceLock<Instructions> = OnceLock::new();
    multiply(*BEST.get_or_init(|| Instructions::best(InstructionSet::detect())), x, w, y, accumulate);
}

/// [`matmul_int8`] with the instructions given.
fn multiply(instructions: Instructions, x: &Int8Rows, w: &Int8Matrix, y: &mut [f32], accumulate: Accumulate) {
    assert_eq!(x.columns(), w.columns(), "the activations have another number of columns than the weight");
    assert_eq!(y.len(), x.rows() * w.rows(), "the result has the wrong length for {} x {}", x.rows(), w.rows());
    let product =
        Product { instructions, x, w, y: SharedMut::new(y), stride: w.rows(), add: accumulate == Accumulate::Add };
    let panels = w.panels().len();
    // A line of a panel takes about four cycles from memory, and one for each row that meets it.
    let cycles = w.bytes() / 64 * x.rows().max(4);
    let tasks = (cycles / TASK_CYCLES).clamp(1, TASKS_A_THREAD * rayon::current_num_threads()).min(panels);
    if tasks <= 1 {
        product.panels(0..panels);
    } else {
        parallel::for_each(tasks, |task| product.panels(task * panels / tasks..(task + 1) * panels / tasks));
    }
}

/// A product that tasks share by its panels.
struct Product<'a> {
    instructions: Instructions,
    x: &'a Int8Rows,
    w: &'a Int8Matrix,
    y: SharedMut<f32>,
    /// Outputs of a row of the result.
    stride: usize,
    add: bool,
}

impl Product<'_> {
    /// All rows of some panels: as many rows as stay in the cache meet one panel after another.
    fn panels(&self, panels: Range<usize>) {
        let groups = self.x.groups();
        let group_bytes = group_words(MOST_ROWS) * self.x.blocks() * size_of::<u32>();
        let together = (ACTIVATION_BYTES / group_bytes.max(1)).max(1);
        for first in (0..groups).step_by(together) {
            for panel in &self.w.panels()[panels.clone()] {
                let lines = self.w.lines(panel);
                // The panel behind this one comes from far away while the first groups meet this one, a part with each.
                let behind = lines.chunks(WORDS * self.x.blocks().max(1));
                let behind = behind.map(|part| part.as_ptr().wrapping_add(lines.len()));
                let behind = behind.chain(std::iter::repeat(lines.as_ptr()));
                for (group, next) in (first..groups.min(first + together)).zip(behind) {
                    self.block(panel, Right { panel: lines.as_ptr(), next, shift: panel.shift }, group);
                }
            }
        }
    }

    /// A group of rows times a panel.
    fn block(&self, panel: &Panel, right: Right, group: usize) {
        let (rows, words) = self.x.group(group);
        let micro = self.instructions.kernels().of(panel.second)[rows.len() - 1];
        let blocks = self.x.blocks();
        // SAFETY: the instructions are among the available ones; `words` are a group of so many rows and `right` a panel of
        // its kind, both of `blocks` blocks. The elements lie inside the result, whose length was checked, and belong to
        // this panel and group, which one task has.
        unsafe {
            let start = self.y.at(rows.start * self.stride + panel.outputs.start);
            if panel.outputs.len() == PANEL {
                return micro(words.as_ptr(), right, blocks, start, self.stride, self.add);
            }
            let mut copy = [0.0_f32; MOST_ROWS * PANEL];
            micro(words.as_ptr(), right, blocks, copy.as_mut_ptr(), PANEL, false);
            for (row, sums) in copy.chunks_exact(PANEL).take(rows.len()).enumerate() {
                let outputs = std::slice::from_raw_parts_mut(start.add(row * self.stride), panel.outputs.len());
                for (output, sum) in outputs.iter_mut().zip(sums) {
                    *output = if self.add { *output + sum } else { *sum };
                }
            }
        }
    }
}
