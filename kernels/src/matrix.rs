//! Frozen weight matrices, packed once for the matrix product.

use crate::buffer::{Line, zeroed_lines};
use crate::gemm::{factor_lines, find_factors};
use crate::panels::{FillColumns, INPUT_BLOCK, PANEL, Window, panel_lines, words_per_output};

/// What the products compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Both factors rounded to bf16 (nearest even), sums in f32.
    #[default]
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A name that is no precision.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision {0:?}: write \"f32\" or \"bf16\"")]
pub struct UnknownPrecision(String);

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(UnknownPrecision(other.to_owned())),
        }
    }
}

/// The packed values by precision: the two differ in what a 32-bit word means.
#[derive(Clone)]
enum Storage {
    /// A word is one f32.
    F32(Vec<Line>),
    /// A word is a pair of bf16, even input low.
    Bf16(Vec<Line>),
}

/// A frozen weight `W [rows = outputs, columns = inputs]`, packed once for `y = x W^T`.
#[derive(Clone)]
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    storage: Storage,
    /// Of the pieces of its panels, where they are multiplied as integers.
    factors: Vec<Line>,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix")
            .field("rows", &self.rows)
            .field("columns", &self.columns)
            .field("precision", &self.precision())
            .finish_non_exhaustive()
    }
}

impl PackedMatrix {
    /// Packs `W`: `fill_row(r, buffer)` writes row `r` (`columns` values); rows are asked for in parallel, each once.
    pub fn pack(
        precision: Precision,
        rows: usize,
        columns: usize,
        fill_row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        Self::pack_of_floats(precision, rows, columns, fill_row).with_factors()
    }

    /// [`PackedMatrix::pack`] for kernels of floats alone. It does not ask for the best instruction set, so that the search
    /// for that can try a product.
    pub(crate) fn pack_of_floats(
        precision: Precision,
        rows: usize,
        columns: usize,
        fill_row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let inputs = columns.next_multiple_of(INPUT_BLOCK);
        let mut lines = zeroed_lines(panel_lines(precision, rows, inputs));
        whole(precision, rows, columns, &|row, _, values| fill_row(row, values)).pack(&mut lines);
        Self { rows, columns, storage: Storage::new(precision, lines), factors: Vec::new() }
    }

    /// Packs `W^T` (a matrix of `columns` outputs and `rows` inputs) from the same rows, for `dX = dY W`.
    pub fn pack_transposed(
        precision: Precision,
        rows: usize,
        columns: usize,
        fill_row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        Self::pack_transposed_of_floats(precision, rows, columns, fill_row).with_factors()
    }

    /// [`PackedMatrix::pack_transposed`] for kernels of floats alone.
    pub(crate) fn pack_transposed_of_floats(
        precision: Precision,
        rows: usize,
        columns: usize,
        fill_row: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let inputs = rows.next_multiple_of(INPUT_BLOCK);
        let mut lines = zeroed_lines(panel_lines(precision, columns, inputs));
        whole(precision, rows, columns, &|row, _, values| fill_row(row, values)).pack_transposed(inputs, &mut lines);
        Self { rows: columns, columns: rows, storage: Storage::new(precision, lines), factors: Vec::new() }
    }

    /// Finds the factors that kernels of integers want, where this CPU uses those.
    fn with_factors(mut self) -> Self {
        let words = words_per_output(self.precision(), self.columns);
        self.factors = zeroed_lines(factor_lines(self.precision(), self.rows.div_ceil(PANEL), words));
        find_factors(self.storage.lines(), words, &mut self.factors);
        self
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What the products with this matrix compute in.
    pub fn precision(&self) -> Precision {
        match self.storage {
            Storage::F32(_) => Precision::F32,
            Storage::Bf16(_) => Precision::Bf16,
        }
    }

    /// Memory that the packed form occupies, padding included.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.lines()) + std::mem::size_of_val(self.factors())
    }

    /// What [`PackedMatrix::bytes`] of such a matrix is.
    pub fn bytes_of(precision: Precision, rows: usize, columns: usize) -> usize {
        let factors = factor_lines(precision, rows.div_ceil(PANEL), words_per_output(precision, columns));
        (panel_lines(precision, rows, columns.next_multiple_of(INPUT_BLOCK)) + factors) * size_of::<Line>()
    }

    /// The panels one after another.
    pub(crate) fn lines(&self) -> &[Line] {
        self.storage.lines()
    }

    /// The factors of the panels' pieces; empty where no kernel of this CPU takes them.
    pub(crate) fn factors(&self) -> &[Line] {
        &self.factors
    }
}

impl Storage {
    fn new(precision: Precision, lines: Vec<Line>) -> Self {
        match precision {
            Precision::F32 => Self::F32(lines),
            Precision::Bf16 => Self::Bf16(lines),
        }
    }

    fn lines(&self) -> &[Line] {
        match self {
            Self::F32(lines) | Self::Bf16(lines) => lines,
        }
    }
}

/// All of a matrix, whole rows at one time.
fn whole<'a>(precision: Precision, rows: usize, columns: usize, fill: &'a FillColumns<'a>) -> Window<'a> {
    Window { precision, rows: 0..rows, columns: 0..columns, piece: columns, fill }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(r: usize, c: usize) -> f32 {
        (r * 131 + c * 7) as f32 * 0.25 - 9.0
    }

    fn fill(r: usize, row: &mut [f32]) {
        for (c, x) in row.iter_mut().enumerate() {
            *x = value(r, c);
        }
    }

    /// The value of output `r`, input `c`, read back by the layout of panels.
    fn read(packed: &PackedMatrix, r: usize, c: usize) -> f32 {
        let words: &[u32] = bytemuck::cast_slice(packed.lines());
        let per_output = words_per_output(packed.precision(), packed.columns());
        let panel = &words[r / 32 * per_output * 32..];
        match packed.precision() {
            Precision::F32 => f32::from_bits(panel[c * 32 + r % 32]),
            Precision::Bf16 => {
                let pair = panel[c / 2 * 32 + r % 32];
                f32::from_bits(if c.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 })
            }
        }
    }

    #[test]
    fn both_packings_hold_every_value_and_zeros_around() {
        for precision in [Precision::F32, Precision::Bf16] {
            for (rows, columns) in [(1, 1), (33, 31), (64, 70), (5, 97)] {
                let packed = PackedMatrix::pack(precision, rows, columns, &fill);
                let transposed = PackedMatrix::pack_transposed(precision, rows, columns, &fill);
                assert_eq!((packed.rows(), packed.columns()), (rows, columns));
                assert_eq!((transposed.rows(), transposed.columns()), (columns, rows));
                let padded = |n: usize| n.div_ceil(32) * 32;
                for r in 0..padded(rows) {
                    for c in 0..padded(columns) {
                        let mut expected = if r < rows && c < columns { value(r, c) } else { 0.0 };
                        if precision == Precision::Bf16 {
                            expected = half::bf16::from_f32(expected).to_f32();
                        }
                        assert_eq!(read(&packed, r, c).to_bits(), expected.to_bits());
                        assert_eq!(read(&transposed, c, r).to_bits(), expected.to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn storage_is_aligned_and_counted() {
        let packed = PackedMatrix::pack(Precision::Bf16, 33, 33, &fill);
        // Two panels of 64 inputs each, and the factors of a piece of each.
        assert_eq!(packed.bytes(), 64 * 64 * 2 + 64 * 4);
        assert_eq!(packed.bytes(), PackedMatrix::bytes_of(Precision::Bf16, 33, 33));
        let of_floats = PackedMatrix::pack_of_floats(Precision::Bf16, 33, 33, &fill);
        assert_eq!((of_floats.bytes(), of_floats.factors().len()), (64 * 64 * 2, 0));
        assert_eq!(packed.lines().as_ptr() as usize % 64, 0);
        assert_eq!(PackedMatrix::pack(Precision::F32, 32, 32, &fill).bytes(), 4096);
    }

    #[test]
    fn precision_names_round_trip() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("f16".parse::<Precision>().is_err());
    }
}
