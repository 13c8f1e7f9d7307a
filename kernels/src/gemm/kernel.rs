//! What a microkernel is, and which one serves an instruction set.
//!
//! A microkernel multiplies a block of a few rows of activations by one panel of outputs over all inputs, each output
//! element in one accumulator from the first input to the last. Rows never meet, so an element's value does not depend
//! on how many rows its block has.
//!
//! Packed activations of a block of R rows: groups of inputs one after another, in each group one cache line a row
//! (`[group][row][16 words]`). A word is a pair of bf16 or one f32. The interleaved form, for products whose left side
//! is stored by input, holds `[input][row]` words.

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512, avx512bf16};
use crate::{InstructionSet, Precision};

/// Words of a cache line: the length of a group.
pub(super) const GROUP: usize = 16;

/// What a microkernel asks the caches for while it multiplies: for each word of its rows two lines at
/// `next + word * step` and half a step further (in words of 4 bytes). Asking never faults and changes no result.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Where to begin.
    pub(super) next: *const u32,
    /// 32 to ask for a line pair each word, 16 for one line, 0 for nothing new.
    pub(super) step: usize,
}

/// Multiplies a block: `c[rows, width] (=|+=) a b`.
///
/// # Safety
/// The instruction set of the kernel is there; `a` holds `groups` groups of packed activations of the kernel's row
/// count, 64-byte aligned (interleaved: 4 bytes); `b` a panel of the kernel's width with as many inputs, 64-byte
/// aligned; `c` is readable and writable for the kernel's rows and width at its stride (in f32).
pub(super) type Micro =
    unsafe fn(a: *const u32, b: *const u32, groups: usize, c: *mut f32, c_stride: usize, add: bool, ahead: Ahead);

/// How activations are packed for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// Words are f32: a group is 16 inputs.
    F32,
    /// Words are f32 that were rounded to bf16: a group is 16 inputs.
    Widened,
    /// Words are pairs of bf16: a group is 32 inputs.
    Pairs,
}

impl Activation {
    /// Inputs in a group.
    pub(super) const fn group_inputs(self) -> usize {
        match self {
            Self::F32 | Self::Widened => GROUP,
            Self::Pairs => 2 * GROUP,
        }
    }
}

/// The microkernels of one instruction set and one kind of panel.
pub(super) struct Kernels {
    /// How they want activations.
    pub(super) activation: Activation,
    /// Outputs in a panel.
    pub(super) width: usize,
    /// The row counts are multiples of this; missing rows are zeros.
    pub(super) row_step: usize,
    /// `micro[i]` multiplies `(i + 1) * row_step` rows.
    pub(super) micro: &'static [Micro],
    /// Groups of inputs in a chunk: what one call takes before the sums go to memory.
    pub(super) depth: usize,
    /// Order of the packed activations.
    pub(super) order: Order,
    /// Prepares the registers of a thread before the first product of a task and frees them after its last.
    pub(super) session: Option<Session>,
}

/// Preparation of a thread for kernels that need one.
pub(super) struct Session {
    /// # Safety
    /// The instruction set is there and permitted.
    pub(super) enter: unsafe fn(),
    /// # Safety
    /// As `enter`, which came before.
    pub(super) leave: unsafe fn(),
}

impl Kernels {
    /// The most rows of a block.
    pub(super) const fn most_rows(&self) -> usize {
        self.micro.len() * self.row_step
    }
}

/// The kernels for packed matrices.
#[cfg(target_arch = "x86_64")]
pub(super) fn packed(isa: InstructionSet, precision: Precision) -> &'static Kernels {
    match (precision, isa) {
        (Precision::F32, _) => dense(isa, Panel::Wide, Order::Grouped),
        (Precision::Bf16, InstructionSet::Portable) => &portable::WIDENED,
        (Precision::Bf16, InstructionSet::Avx2) => &avx2::WIDENED,
        (Precision::Bf16, InstructionSet::Avx512) => &avx512::WIDENED,
        (Precision::Bf16, InstructionSet::Avx512Bf16) => &avx512bf16::PAIRS,
        (Precision::Bf16, InstructionSet::Amx) => &amx::TILES,
    }
}

/// The kernels for packed matrices.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn packed(isa: InstructionSet, precision: Precision) -> &'static Kernels {
    match precision {
        Precision::F32 => dense(isa, Panel::Wide, Order::Grouped),
        Precision::Bf16 => &portable::WIDENED,
    }
}

/// Width of an f32 panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    /// 32 outputs.
    Wide,
    /// 16 outputs, for results of few columns.
    Narrow,
}

/// Order of packed f32 activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[group][row][16 inputs]`.
    Grouped,
    /// `[input][row]`.
    Interleaved,
}

/// The f32 kernels.
pub(super) fn dense(isa: InstructionSet, panel: Panel, order: Order) -> &'static Kernels {
    #[cfg(target_arch = "x86_64")]
    {
        if isa >= InstructionSet::Avx512 {
            return match (panel, order) {
                (Panel::Wide, Order::Grouped) => &avx512::WIDE_GROUPED,
                (Panel::Wide, Order::Interleaved) => &avx512::WIDE_INTERLEAVED,
                (Panel::Narrow, Order::Grouped) => &avx512::NARROW_GROUPED,
                (Panel::Narrow, Order::Interleaved) => &avx512::NARROW_INTERLEAVED,
            };
        }
        if isa == InstructionSet::Avx2 {
            return match (panel, order) {
                (Panel::Wide, Order::Grouped) => &avx2::WIDE_GROUPED,
                (Panel::Wide, Order::Interleaved) => &avx2::WIDE_INTERLEAVED,
                (Panel::Narrow, Order::Grouped) => &avx2::NARROW_GROUPED,
                (Panel::Narrow, Order::Interleaved) => &avx2::NARROW_INTERLEAVED,
            };
        }
    }
    let _ = isa;
    match (panel, order) {
        (Panel::Wide, Order::Grouped) => &portable::WIDE_GROUPED,
        (Panel::Wide, Order::Interleaved) => &portable::WIDE_INTERLEAVED,
        (Panel::Narrow, Order::Grouped) => &portable::NARROW_GROUPED,
        (Panel::Narrow, Order::Interleaved) => &portable::NARROW_INTERLEAVED,
    }
}

/// Groups in a chunk of the f32 kernels. A narrow panel has few results for each input read: whole rows are read in
/// one go then. The interleaved form reads a piece of many rows, short ones of them.
pub(super) const fn f32_depth(width: usize, order: Order) -> usize {
    match (width, order) {
        (16, Order::Grouped) => 128,
        _ => 32,
    }
}

/// The place of row `r`, word `j` of a group of packed activations.
pub(super) const fn word_index<const ROWS: usize, const INTERLEAVED: bool>(r: usize, j: usize) -> usize {
    if INTERLEAVED { j * ROWS + r } else { r * GROUP + j }
}
