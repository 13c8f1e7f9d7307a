//! What a microkernel is, and which one serves an instruction set.
//!
//! A microkernel multiplies a block of a few rows of activations by one panel of outputs over all inputs, each output
//! element in one accumulator from the first input to the last. Rows never meet, so an element's value does not depend
//! on how many rows its block has.
//!
//! Packed activations of a block of R rows: groups of inputs one after another, in each group one cache line a row
//! (`[group][row][16 words]`). A word is a pair of bf16 or one f32. The interleaved form, for products whose left side
//! is stored by input, holds `[input][row]` words.

use super::integers::{self, ROW_FACTOR_LINES};
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512, avx512bf16};
#[cfg(target_arch = "x86_64")]
use crate::isa::has_slow_bf16_pairs;
use crate::panels::PANEL;
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

/// The right side of a block.
#[derive(Clone, Copy)]
pub(super) struct Right {
    /// Groups of a panel.
    pub(super) panel: *const u32,
    /// For kernels of integers the factor of each output in these groups.
    pub(super) factors: *const f32,
}

impl Right {
    /// For kernels of floats.
    pub(super) fn of_floats(panel: *const u32) -> Self {
        Self { panel, factors: std::ptr::null() }
    }
}

/// Multiplies a block: `c[rows, width] (=|+=) a b`.
///
/// # Safety
/// The instruction set of the kernel is there; `a` holds `groups` groups of packed activations of the kernel's row
/// count, 64-byte aligned (interleaved: 4 bytes); `b` a panel of the kernel's width with as many inputs, 64-byte
/// aligned, and in kernels of integers a factor for each output, 64-byte aligned too; `c` is
/// readable and writable for the kernel's rows and width at its stride (in f32).
pub(super) type Micro =
    unsafe fn(a: *const u32, b: Right, groups: usize, c: *mut f32, c_stride: usize, add: bool, ahead: Ahead);

/// How activations are packed for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// Words are f32: a group is 16 inputs.
    F32,
    /// Words are f32 that were rounded to bf16: a group is 16 inputs.
    Widened,
    /// Words are pairs of bf16, or of integers: a group is 32 inputs.
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
    /// Set where both sides are [integers](super::integers).
    pub(super) integers: Option<Integers>,
}

/// What goes with kernels of integers.
pub(super) struct Integers {
    /// Kernels of floats with the same rows and outputs.
    pub(super) floats: &'static Kernels,
    /// `lone[i]` multiplies `i + 1` rows by a panel of bf16, which it rounds on the way: for a panel that meets one block.
    pub(super) lone: &'static [Micro],
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

    /// Lines that a group of inputs occupies in a panel.
    pub(super) const fn panel_group_lines(&self) -> usize {
        match self.activation {
            Activation::F32 | Activation::Pairs => self.width,
            Activation::Widened => self.width / 2,
        }
    }

    /// Lines behind a chunk of a block of packed activations.
    pub(super) const fn row_factor_lines(&self) -> usize {
        if self.integers.is_some() { ROW_FACTOR_LINES } else { 0 }
    }

    /// The kernels that multiply floats.
    pub(super) fn of_floats(&'static self) -> &'static Self {
        self.integers.as_ref().map_or(self, |integers| integers.floats)
    }
}

/// The fastest kernels for packed matrices that an instruction set allows.
pub(super) fn packed(isa: InstructionSet, precision: Precision) -> &'static Kernels {
    let floats = floats(isa, precision);
    match floats.activation {
        Activation::Widened => integers::fastest(isa).unwrap_or(floats),
        Activation::F32 | Activation::Pairs => floats,
    }
}

/// The fastest kernels that multiply floats.
pub(super) fn floats(isa: InstructionSet, precision: Precision) -> &'static Kernels {
    match (precision, isa) {
        (Precision::F32, _) => dense(isa, Panel::Wide, Order::Grouped),
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, InstructionSet::Avx512Bf16) if !has_slow_bf16_pairs() => &avx512bf16::PAIRS,
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, InstructionSet::Amx) => &amx::TILES,
        (Precision::Bf16, _) => &of_f32_words(isa).widened,
    }
}

/// What products are computed with on this CPU: the instruction set, with `+i16` where bf16 weights are multiplied as
/// integers of 16 bits. Equal names give equal bits.
pub fn arithmetic() -> &'static str {
    let isa = InstructionSet::detect();
    match (isa, packed(isa, Precision::Bf16).integers.is_some()) {
        (isa, false) => isa.name(),
        (InstructionSet::Avx2, true) => "avx2+i16",
        (InstructionSet::Avx512, true) => "avx512+i16",
        (_, true) => "avx512bf16+i16",
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
    let [wide, narrow] = &of_f32_words(isa).plain;
    let [grouped, interleaved] = match panel {
        Panel::Wide => wide,
        Panel::Narrow => narrow,
    };
    match order {
        Order::Grouped => grouped,
        Order::Interleaved => interleaved,
    }
}

/// The best kernels whose activations are f32 words; what comes after AVX-512 has none of its own.
fn of_f32_words(isa: InstructionSet) -> &'static Family {
    #[cfg(target_arch = "x86_64")]
    {
        if isa >= InstructionSet::Avx512 {
            return &avx512::FAMILY;
        }
        if isa == InstructionSet::Avx2 {
            return &avx2::FAMILY;
        }
    }
    let _ = isa;
    &portable::FAMILY
}

/// The kernels of an instruction set whose activations are f32 words.
pub(super) struct Family {
    /// f32: wide and narrow panels, for grouped and interleaved activations.
    pub(super) plain: [[Kernels; 2]; 2],
    /// Wide bf16 panels, widened to f32 on the way.
    pub(super) widened: Kernels,
}

impl Family {
    /// From the microkernels, in the order of the fields.
    pub(super) const fn new(plain: [[&'static [Micro]; 2]; 2], widened: &'static [Micro]) -> Self {
        const fn kernels(activation: Activation, width: usize, order: Order, micro: &'static [Micro]) -> Kernels {
            let depth = match activation {
                Activation::F32 => f32_depth(width, order),
                Activation::Widened | Activation::Pairs => 64,
            };
            Kernels { activation, width, row_step: 1, micro, depth, order, session: None, integers: None }
        }
        let [[wide_grouped, wide_interleaved], [narrow_grouped, narrow_interleaved]] = plain;
        Self {
            plain: [
                [
                    kernels(Activation::F32, 32, Order::Grouped, wide_grouped),
                    kernels(Activation::F32, 32, Order::Interleaved, wide_interleaved),
                ],
                [
                    kernels(Activation::F32, 16, Order::Grouped, narrow_grouped),
                    kernels(Activation::F32, 16, Order::Interleaved, narrow_interleaved),
                ],
            ],
            widened: kernels(Activation::Widened, PANEL, Order::Grouped, widened),
        }
    }
}

/// The [`Family`] of the microkernels `multiply::<ROWS, WIDTH, INTERLEAVED>` and `multiply_widened::<ROWS>` in scope, for
/// the row counts given. A width is in whatever unit `multiply` counts: first that of a wide panel, then of a narrow one.
macro_rules! family {
    ($wide:literal, $narrow:literal; $($rows:literal)*) => {
        Family::new(
            [
                [&[$(multiply::<$rows, $wide, false>),*], &[$(multiply::<$rows, $wide, true>),*]],
                [&[$(multiply::<$rows, $narrow, false>),*], &[$(multiply::<$rows, $narrow, true>),*]],
            ],
            &[$(multiply_widened::<$rows>),*],
        )
    };
}
pub(super) use family;

/// Groups in a chunk of the f32 kernels. A narrow panel has few results for each input read: whole rows are read in
/// one go then. The interleaved form reads a piece of many rows, short ones of them.
const fn f32_depth(width: usize, order: Order) -> usize {
    match (width, order) {
        (16, Order::Grouped) => 128,
        _ => 32,
    }
}

/// The place of row `r`, word `j` of a group of packed activations.
pub(super) const fn word_index<const ROWS: usize, const INTERLEAVED: bool>(r: usize, j: usize) -> usize {
    if INTERLEAVED { j * ROWS + r } else { r * GROUP + j }
}
