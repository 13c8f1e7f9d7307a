//! Blocks whose errors are weighted by the importance of their columns.
//!
//! Several blocks are encoded side by side: the searches of one block are chains of additions, which must keep their order,
//! and only other blocks leave something to do in the meantime.

use espalier_kernels::PlainWork;

use super::half_scales::HalfScales;
use super::lanes::Lanes;

/// Blocks side by side, with what weighs their errors.
pub(super) struct Batch<'a, const N: usize, const S: usize> {
    /// The values of each block.
    pub(super) values: [&'a [f32; N]; S],
    /// The importance of their columns; without it the squares of the values are the weights.
    pub(super) importance: Option<[&'a [f32; N]; S]>,
    /// The mean of the squares in the row of each block, where the format asks for it.
    pub(super) row_mean_square: [f32; S],
}

/// A format that encodes `S` blocks of `N` elements side by side.
pub(super) trait EncodeWeighted<const N: usize, const S: usize>: HalfScales {
    /// Whether the weights depend on the whole row.
    const NEEDS_ROW: bool = false;

    /// Encodes finite values.
    fn encode_weighted(batch: &Batch<'_, N, S>) -> [Self; S];
}

/// Weights `importance sqrt(variance + x^2)`.
#[inline(always)]
pub(super) fn weigh<const L: usize, const N: usize>(
    x: &Lanes<f32, L, N>,
    importance: &Lanes<f32, L, N>,
    variance: &[f32; L],
) -> Lanes<f32, L, N> {
    let mut weights = [[0.0; L]; N];
    for i in 0..N {
        for l in 0..L {
            weights[i][l] = importance[i][l] * (variance[l] + x[i][l] * x[i][l]).sqrt();
        }
    }
    weights
}

/// The sum of the weights of each group.
#[inline(always)]
pub(super) fn weight_sums<const L: usize, const N: usize>(weights: &Lanes<f32, L, N>) -> [f32; L] {
    let mut sums = [0.0; L];
    for weights in weights {
        for l in 0..L {
            sums[l] += weights[l];
        }
    }
    sums
}

/// Whole rows to be encoded on one thread.
pub(super) struct WeightedRows<'a, B, const N: usize, const S: usize> {
    /// Finite values, row after row; without importance any number of blocks.
    pub(super) values: &'a [f32],
    /// One number a column.
    pub(super) importance: Option<&'a [f32]>,
    /// As many blocks as there are values for.
    pub(super) out: &'a mut [B],
}

impl<B: EncodeWeighted<N, S>, const N: usize, const S: usize> PlainWork for WeightedRows<'_, B, N, S> {
    /// The first element of the first block that overflows.
    type Output = Option<usize>;

    #[inline(always)]
    fn run(self) -> Option<usize> {
        let blocks = self.values.as_chunks::<N>().0;
        let importance = self.importance.map(|importance| importance.as_chunks::<N>().0);
        let blocks_per_row = importance.map_or(blocks.len(), <[_]>::len).max(1);
        let mut mean_squares = Vec::new();
        if B::NEEDS_ROW && importance.is_some() {
            mean_squares = row_mean_squares(self.values, blocks_per_row * N);
        }
        for (batch, out) in self.out.chunks_mut(S).enumerate() {
            // The last batch is filled up with its last block.
            let at = |s: usize| (batch * S + s).min(blocks.len() - 1);
            let encoded = B::encode_weighted(&Batch {
                values: std::array::from_fn(|s| &blocks[at(s)]),
                importance: importance.map(|row| std::array::from_fn(|s| &row[at(s) % blocks_per_row])),
                row_mean_square: std::array::from_fn(|s| {
                    mean_squares.get(at(s) / blocks_per_row).copied().unwrap_or_default()
                }),
            });
            out.copy_from_slice(&encoded[..out.len()]);
            if let Some(overflow) = out.iter().position(|block| !block.is_finite()) {
                return Some(at(overflow) * N);
            }
        }
        None
    }
}

/// The mean of the squares of each row: a sum in the order of the columns, over eight rows at a time.
#[inline(always)]
fn row_mean_squares(values: &[f32], columns: usize) -> Vec<f32> {
    const ROWS: usize = 8;
    let mut means = Vec::with_capacity(values.len() / columns);
    for rows in values.chunks(ROWS * columns) {
        let count = rows.len() / columns;
        let row = |index: usize| &rows[index.min(count - 1) * columns..][..columns];
        let rows: [&[f32]; ROWS] = std::array::from_fn(row);
        let mut sums = [0.0; ROWS];
        for column in 0..columns {
            for (sum, row) in sums.iter_mut().zip(&rows) {
                *sum += row[column] * row[column];
            }
        }
        means.extend(sums[..count].iter().map(|sum| sum / columns as f32));
    }
    means
}
