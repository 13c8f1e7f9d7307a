//! What a microkernel is, and which one serves a CPU.
//!
//! A microkernel multiplies a group of a few rows by one panel of 32 outputs over all inputs. Rows never meet, so an
//! element's value does not depend on how many rows its group has.

use super::plain;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::InstructionSet;
use crate::block_product::Second;
use crate::buffer::Line;

/// Most rows of a group.
pub(super) const MOST_ROWS: usize = 6;
/// Inputs with one scale.
pub(super) const BLOCK: usize = 32;
/// Words of four numbers of a block.
pub(super) const WORDS: usize = BLOCK / 4;
/// What is taken off the bytes of panels whose numbers have a sign, before it is shifted ([`Micro`]).
pub(super) const OFFSET: i32 = 128;
/// The shift of numbers below 32, of which those of four words fit in sums of 16 bits.
pub(super) const SHIFT_OF_16: u32 = 3;
/// The shift of numbers below 64, of which those of two words do.
pub(super) const SHIFT_OF_32: u32 = 2;

/// What follows the numbers of a block of activations, for each row of a group.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Factor {
    /// The scale.
    Scale,
    /// The scale times the sum of the numbers.
    ScaledSum,
    /// The sum of the numbers times `-OFFSET`, a whole number.
    Start,
    /// The same of the first sixteen numbers.
    FirstStart,
    /// The same of the last sixteen numbers.
    LastStart,
}

/// All of them.
pub(super) const FACTORS: usize = 5;

/// Words of a block of a group of so many rows: eight words of four numbers for each row (`[row][word]`), then the
/// factors (`[factor][row]`).
pub(super) const fn group_words(rows: usize) -> usize {
    (WORDS + FACTORS) * rows
}

/// Lines of a block of a panel: eight words of four bytes for each output (`[word][output]`), the scales, and the second
/// factors where there are some.
pub(super) const fn block_lines(second: Second) -> usize {
    match second {
        Second::None => 2 * WORDS + 2,
        Second::Addend | Second::Scale => 2 * WORDS + 4,
    }
}

/// The weights of a call.
#[derive(Clone, Copy)]
pub(super) struct Right {
    /// The blocks of a panel.
    pub(super) panel: *const Line,
    /// What comes after it: eight lines a block from here on are asked for meanwhile. Any address will do.
    pub(super) next: *const Line,
    /// Bytes of panels without minima are numbers with `OFFSET >> shift` on top.
    pub(super) shift: u32,
}

/// Multiplies a group of rows by a panel: `y[rows, 32] (=|+=) x W^T`.
///
/// # Safety
/// The CPU has the instructions; `rows` holds `blocks` blocks of a group of the kernel's row count, the panel as many of the
/// kernel's kind; `y` is writable (with `add` readable too) for the rows and 32 values at its stride.
pub(super) type Micro = unsafe fn(rows: *const u32, right: Right, blocks: usize, y: *mut f32, stride: usize, add: bool);

/// What the second factors of a kernel's panels are.
pub(super) trait Kind {
    const SECOND: Second;
}

/// Numbers with an offset, one scale.
pub(super) struct Centred;
/// Numbers from 0 to 31 and minima.
pub(super) struct Affine;
/// Numbers with an offset, a scale for each sixteen.
pub(super) struct Halves;

impl Kind for Centred {
    const SECOND: Second = Second::None;
}

impl Kind for Affine {
    const SECOND: Second = Second::Addend;
}

impl Kind for Halves {
    const SECOND: Second = Second::Scale;
}

/// The microkernels of a set of instructions, by kind of panel, for 1 to [`MOST_ROWS`] rows.
pub(super) struct Kernels {
    pub(super) centred: [Micro; MOST_ROWS],
    pub(super) affine: [Micro; MOST_ROWS],
    pub(super) halves: [Micro; MOST_ROWS],
}

impl Kernels {
    pub(super) fn of(&self, second: Second) -> &[Micro; MOST_ROWS] {
        match second {
            Second::None => &self.centred,
            Second::Addend => &self.affine,
            Second::Scale => &self.halves,
        }
    }
}

/// The [`Kernels`] of `$multiply::<kind, rows>`.
macro_rules! kernels {
    ($multiply:ident) => {
        kernels!($multiply; 1 2 3 4 5 6)
    };
    ($multiply:ident; $($rows:literal)*) => {
        Kernels {
            centred: [$($multiply::<crate::int8::kernel::Centred, $rows>),*],
            affine: [$($multiply::<crate::int8::kernel::Affine, $rows>),*],
            halves: [$($multiply::<crate::int8::kernel::Halves, $rows>),*],
        }
    };
}
pub(super) use kernels;

/// What a product may be computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 256 bits with `VPDPBUSD`.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// 512 bits with `VPDPBUSD`.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Instructions {
    /// Those that an instruction set allows and this CPU has, in rising order.
    pub(super) fn available(isa: InstructionSet) -> Vec<Self> {
        #[allow(unused_mut, reason = "elsewhere there are no others")]
        let mut all = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            if isa >= InstructionSet::Avx2 {
                all.push(Self::Avx2);
                if has!("avxvnni") {
                    all.push(Self::AvxVnni);
                }
            }
            if isa >= InstructionSet::Avx512 && has!("avx512vnni") {
                all.push(Self::Avx512Vnni);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
        all
    }

    /// The last of them.
    pub(super) fn best(isa: InstructionSet) -> Self {
        Self::available(isa).last().copied().unwrap_or(Self::Plain)
    }

    pub(super) fn has_vpdpbusd(self) -> bool {
        match self {
            Self::Plain => false,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => false,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni | Self::Avx512Vnni => true,
        }
    }

    pub(super) fn kernels(self) -> &'static Kernels {
        match self {
            Self::Plain => &plain::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => &avx2::VNNI_KERNELS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => &avx512::KERNELS,
        }
    }
}
