//! Products of floats as products of integers, where a CPU multiplies pairs of 16 bits faster than floats.
//!
//! Both sides are rounded to integers piece by piece: up to 576 inputs of a row, or of an output, share a factor, which gives
//! the piece a norm of [`NORM`]. By Cauchy and Schwarz no sum of products then leaves 32 bits, so sums are exact; each is
//! multiplied by both factors and added to the result in f32. A value's error is at most half of its factor, `1.5e-5` of the
//! norm of its piece, so that a product of two pieces errs by `1.2e-5` of both norms in the mean, whatever their values.
//! Rounding rows of even values to bf16 makes that `5e-5` for 576 inputs and `7e-5` for 256. The bits are the same on every
//! instruction set, for any number of rows and threads.
//!
//! Panels stay in bf16, exact, with the factors of their pieces beside them. A piece of a panel is rounded before the rows of
//! a batch meet it.
//!
//! - `rounding`: both sides; `plain`, `avx2`, `avx512`: the microkernels

// Plain loops are compiled anew for each set of target features, which needs their bodies in the callers.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(test)]
pub(super) mod plain;
mod rounding;

pub(super) use rounding::{pack_rows, round_panel};

use rayon::prelude::*;

use super::drive::equal_share;
use super::kernel::{GROUP, Kernels, packed};
use crate::buffer::Line;
use crate::panels::PANEL;
use crate::{InstructionSet, Precision};

/// Norm of a piece of integers: none is beyond 16 bits, and a product of two pieces stays below 2^30.
const NORM: f32 = 32_760.0;
/// A piece whose squares sum to less than this counts as zeros: its factor would have no inverse.
const LEAST_SQUARES: f32 = 1e-37;
/// Adding it leaves the nearest integer, ties to even, in the low bits of a float.
const ROUNDING: f32 = 12_582_912.0;
/// Most groups of 32 inputs in a piece.
pub(super) const PIECE_GROUPS: usize = 18;
/// Lines that follow a piece of a block of rows: the factor of each row.
pub(super) const ROW_FACTOR_LINES: usize = 1;
/// Lines that follow a piece of a panel: the factor of each output.
pub(super) const PANEL_FACTOR_LINES: usize = PANEL / GROUP;

/// The kernels of integers that are faster than those of floats on this instruction set.
pub(super) fn fastest(isa: InstructionSet) -> Option<&'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if isa >= InstructionSet::Avx512 {
            return has!("avx512vnni").then_some(&avx512::KERNELS);
        }
        if isa == InstructionSet::Avx2 {
            return Some(if has!("avxvnni") { &avx2::VNNI_KERNELS } else { &avx2::KERNELS });
        }
    }
    let _ = isa;
    None
}

/// Whether packed matrices are to have factors: where this CPU multiplies them as integers, and in tests of all kernels.
fn want_factors(precision: Precision) -> bool {
    precision == Precision::Bf16 && (cfg!(test) || packed(InstructionSet::detect(), precision).integers.is_some())
}

/// Lines of the factors of so many panels with so many words an output, if they are to have some.
pub(crate) fn factor_lines(precision: Precision, panels: usize, words: usize) -> usize {
    if want_factors(precision) { panels * factor_lines_of(words, piece_groups(words)) } else { 0 }
}

/// Groups of a piece of so many words.
fn piece_groups(words: usize) -> usize {
    equal_share(words / GROUP, PIECE_GROUPS)
}

/// Lines of the factors of a panel with so many words an output, in pieces of so many groups.
pub(super) fn factor_lines_of(words: usize, piece_groups: usize) -> usize {
    (words / GROUP).div_ceil(piece_groups.max(1)) * PANEL_FACTOR_LINES
}

/// The factors of the pieces of panels that hold so many words an output: `[panel][piece]`, 32 each.
///
/// # Panics
/// If `factors` is neither empty nor as long as [`factor_lines`] says.
pub(crate) fn find_factors(panels: &[Line], words: usize, factors: &mut [Line]) {
    find_factors_of(panels, words, piece_groups(words), factors);
}

/// [`find_factors`] with the groups of a piece given.
pub(super) fn find_factors_of(panels: &[Line], words: usize, piece_groups: usize, factors: &mut [Line]) {
    if factors.is_empty() {
        return;
    }
    let (panel_lines, own_lines) = (words * PANEL / GROUP, factor_lines_of(words, piece_groups));
    assert_eq!(factors.len() * panel_lines, panels.len() * own_lines, "factors of other panels");
    let panels = factors.par_chunks_exact_mut(own_lines).zip(panels.par_chunks_exact(panel_lines));
    panels.for_each(|(factors, panel)| {
        let pieces = panel.chunks(piece_groups * PANEL);
        for (factors, piece) in factors.chunks_exact_mut(PANEL_FACTOR_LINES).zip(pieces) {
            rounding::panel_factors(piece, factors);
        }
    });
}
