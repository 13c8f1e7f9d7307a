//! Packing of activations for the microkernels.

use std::ops::Range;

use half::bf16;

use super::integers;
use super::kernel::{Activation, GROUP, Kernels};
use super::round::{round_chunks, round_row, round_row_widened, widen_chunks};
use crate::buffer::Line;
use crate::values::Values;

/// What of the left side to pack, and for how many rows of a block.
pub(super) struct Part {
    /// Rows of the left side.
    pub(super) rows: Range<usize>,
    /// Rows that the block has with its padding.
    pub(super) padded: usize,
    /// Groups of inputs.
    pub(super) groups: Range<usize>,
}

/// Packs rows of a row-major matrix: `lines[group][row]`, what lies beyond the rows and columns becomes zero. Integers are
/// followed by their factors.
pub(super) fn pack_rows(kernels: &Kernels, x: Values<'_>, columns: usize, part: &Part, lines: &mut [Line]) {
    if kernels.integers.is_some() {
        integers::pack_rows(x, columns, part, lines);
        return;
    }
    let activation = kernels.activation;
    let inputs = activation.group_inputs();
    let first = part.groups.start * inputs;
    let last = columns.min(part.groups.end * inputs);
    for (r, row) in part.rows.clone().enumerate() {
        let (lines, next) = (&mut lines[r..], (part.rows.start + r + ROWS_AHEAD) * columns + first);
        match x {
            Values::F32(x) => {
                prefetch_row(x.as_ptr().wrapping_add(next), last - first);
                let row = &x[row * columns..][first..last];
                pack_row(activation, row, lines, part.padded, part.groups.len());
            }
            Values::Bf16(x) => {
                prefetch_row(x.as_ptr().wrapping_add(next).cast(), (last - first) / 2);
                let row = &x[row * columns..][first..last];
                pack_rounded_row(activation, row, lines, part.padded, part.groups.len());
            }
        }
    }
    let empty = Line([0; GROUP]);
    for r in part.rows.len()..part.padded {
        lines[r..].iter_mut().step_by(part.padded).for_each(|line| *line = empty);
    }
}

/// Rows that are asked for ahead of their packing.
pub(super) const ROWS_AHEAD: usize = 4;

/// Asks the caches for `count` f32; any address will do.
pub(super) fn prefetch_row(row: *const f32, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for i in (0..count).step_by(GROUP) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(i).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, count);
}

/// Packs a row of activations into every `step`-th of `lines`, `groups` of them, zeros after its last value.
///
/// # Panics
/// If the row does not fit in the groups, or the groups not in the lines.
pub(super) fn pack_row(activation: Activation, row: &[f32], lines: &mut [Line], step: usize, groups: usize) {
    let inputs = activation.group_inputs();
    let whole = row.len() / inputs;
    assert!(groups == 0 || (groups - 1) * step < lines.len(), "pack_row: too few lines");
    assert!(row.len() <= groups * inputs, "pack_row: the row is longer than its groups");
    let (chunks, rest) = row.split_at(whole * inputs);
    match activation {
        Activation::F32 => {
            for (group, values) in chunks.chunks_exact(GROUP).enumerate() {
                lines[group * step].0.copy_from_slice(bytemuck::cast_slice(values));
            }
        }
        Activation::Widened => widen_chunks(chunks, lines, step),
        Activation::Pairs => round_chunks(chunks, lines, step),
    }
    for group in whole..groups {
        let line = &mut lines[group * step];
        let rest = if group == whole { rest } else { &[] };
        match activation {
            Activation::F32 => {
                line.0 = [0; GROUP];
                line.0[..rest.len()].copy_from_slice(bytemuck::cast_slice(rest));
            }
            Activation::Widened => round_row_widened(rest, bytemuck::cast_slice_mut(&mut line.0)),
            Activation::Pairs => round_row(rest, bytemuck::cast_slice_mut(&mut line.0)),
        }
    }
}

/// [`pack_row`] for values that are rounded already.
///
/// # Panics
/// As [`pack_row`].
pub(super) fn pack_rounded_row(activation: Activation, row: &[bf16], lines: &mut [Line], step: usize, groups: usize) {
    let inputs = activation.group_inputs();
    assert!(groups == 0 || (groups - 1) * step < lines.len(), "pack_rounded_row: too few lines");
    assert!(row.len() <= groups * inputs, "pack_rounded_row: the row is longer than its groups");
    let mut chunks = row.chunks_exact(inputs);
    let mut targets = lines.iter_mut().step_by(step.max(1)).take(groups);
    for (values, line) in (&mut chunks).zip(&mut targets) {
        pack_rounded(activation, values, line);
    }
    let rest = chunks.remainder();
    for (index, line) in targets.enumerate() {
        line.0 = [0; GROUP];
        if index == 0 {
            pack_rounded(activation, rest, line);
        }
    }
}

/// The words of up to a group of rounded values; the others stay.
fn pack_rounded(activation: Activation, values: &[bf16], line: &mut Line) {
    match activation {
        Activation::Pairs => {
            bytemuck::cast_slice_mut::<u32, u16>(&mut line.0)[..values.len()]
                .copy_from_slice(bytemuck::cast_slice(values));
        }
        Activation::F32 | Activation::Widened => {
            for (word, value) in line.0.iter_mut().zip(values) {
                *word = u32::from(value.to_bits()) << 16;
            }
        }
    }
}
