//! A product with a frozen weight and an update of low rank, in one pass over the activations.

use std::ops::Range;

use super::drive::{Beside, Panels};
use super::kernel::{Kernels, packed};
use super::{Accumulate, matmul_values, multiply_beside, multiply_values};
use crate::buffer::SharedMut;
use crate::panels::{INPUT_BLOCK, PANEL};
use crate::{InstructionSet, PackedMatrix, Precision, Values, ValuesMut};

/// The factors of an update `B A` with `A [rank, inputs]`, `B [outputs, rank]`, packed for `u = x A^T` and `u B^T`.
#[derive(Clone, Debug)]
pub struct LowRank {
    down: PackedMatrix,
    up: PackedMatrix,
    /// For each panel of outputs, the columns of `B` that are not zero.
    touched: Vec<Range<usize>>,
}

/// The factors before their packing.
pub struct LowRankFactors<'a> {
    /// Rows of `A`: the rank, or the ranks of several updates stacked.
    pub rank: usize,
    /// Columns of `A`.
    pub inputs: usize,
    /// Rows of `B`.
    pub outputs: usize,
    /// Writes a row of `A`.
    pub a: &'a (dyn Fn(usize, &mut [f32]) + Sync),
    /// Writes a row of `B`, zeros included.
    pub b: &'a (dyn Fn(usize, &mut [f32]) + Sync),
    /// Rows of `B` and the columns in which they are not zero; a row that is in none of them is zero.
    pub blocks: &'a [(Range<usize>, Range<usize>)],
}

impl LowRank {
    /// For `y += (x A^T) B^T`.
    pub fn pack(precision: Precision, factors: &LowRankFactors<'_>) -> Self {
        let &LowRankFactors { rank, inputs, outputs, a, b, blocks } = factors;
        let touched = |panel: usize| {
            let here = panel * PANEL..(panel + 1) * PANEL;
            let met = blocks.iter().filter(|(rows, _)| rows.start < here.end && here.start < rows.end);
            met.map(|(_, columns)| columns.clone())
                .reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
                .unwrap_or_default()
        };
        Self {
            down: PackedMatrix::pack(precision, rank, inputs, a),
            up: PackedMatrix::pack_of_floats(precision, outputs, rank, b),
            touched: (0..outputs.div_ceil(PANEL)).map(touched).collect(),
        }
    }

    /// For the way back: `dx += (dy B) A`.
    pub fn pack_transposed(precision: Precision, factors: &LowRankFactors<'_>) -> Self {
        let &LowRankFactors { rank, inputs, outputs, a, b, .. } = factors;
        Self {
            down: PackedMatrix::pack_transposed(precision, outputs, rank, b),
            up: PackedMatrix::pack_transposed_of_floats(precision, rank, inputs, a),
            touched: vec![0..rank; inputs.div_ceil(PANEL)],
        }
    }

    /// `u = x A^T` alone.
    ///
    /// # Panics
    /// If lengths do not fit together.
    pub fn narrow(&self, x: Values<'_>, m: usize, u: &mut [f32]) {
        matmul_values(x, m, &self.down, ValuesMut::F32(u), Accumulate::Overwrite);
    }

    /// `u = x A^T` and `y += u B^T`, for a weight that is multiplied elsewhere before: the bits are those of
    /// [`matmul_low_rank`].
    ///
    /// # Panics
    /// If lengths do not fit together.
    pub fn add(&self, x: Values<'_>, m: usize, u: &mut [f32], y: &mut [f32]) {
        self.add_with(packed(InstructionSet::detect(), self.down.precision()), x, m, u, y);
    }

    /// [`LowRank::add`] with the microkernels given.
    pub(super) fn add_with(&self, kernels: &'static Kernels, x: Values<'_>, m: usize, u: &mut [f32], y: &mut [f32]) {
        multiply_values(kernels, x, m, &self.down, ValuesMut::F32(&mut *u), Accumulate::Overwrite);
        multiply_values(kernels.of_floats(), Values::F32(u), m, &self.up, ValuesMut::F32(y), Accumulate::Add);
    }

    /// Memory of both factors.
    pub fn bytes(&self) -> usize {
        self.down.bytes() + self.up.bytes()
    }

    /// Columns of `u`.
    pub fn rank(&self) -> usize {
        self.down.rows()
    }
}

/// `u = x A^T` and `y (=|+=) x W^T + u B^T`, with the rules of [`matmul_values`](super::matmul_values).
///
/// In bf16 `u` itself is f32; it is rounded on its way into the second product.
///
/// # Panics
/// If lengths, or precisions of the two, do not fit together.
pub fn matmul_low_rank(
    x: Values<'_>,
    m: usize,
    w: &PackedMatrix,
    low_rank: &LowRank,
    u: &mut [f32],
    y: ValuesMut<'_>,
    accumulate: Accumulate,
) {
    multiply(packed(InstructionSet::detect(), w.precision()), x, m, w, low_rank, u, y, accumulate);
}

/// [`matmul_low_rank`] with the microkernels given.
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply(
    kernels: &'static Kernels,
    x: Values<'_>,
    m: usize,
    w: &PackedMatrix,
    low_rank: &LowRank,
    u: &mut [f32],
    y: ValuesMut<'_>,
    accumulate: Accumulate,
) {
    let (columns, rank) = (w.columns(), low_rank.rank());
    assert_eq!(u.len(), m * rank, "u has the wrong length for {m} x {rank}");
    assert_eq!(low_rank.down.columns(), columns, "the update has other inputs than the weight");
    assert_eq!(low_rank.up.rows(), w.rows(), "the update has other outputs than the weight");
    assert_eq!(low_rank.down.precision(), w.precision(), "the update has another precision than the weight");
    if columns == 0 {
        u.fill(0.0);
    }
    let beside = Beside {
        down: Panels::of(&low_rank.down),
        rank,
        up: low_rank.up.lines(),
        up_groups: rank.next_multiple_of(INPUT_BLOCK) / kernels.of_floats().activation.group_inputs(),
        touched: &low_rank.touched,
        u: SharedMut::new(u),
    };
    multiply_beside(kernels, x, m, w, Some(beside), y, accumulate);
}
