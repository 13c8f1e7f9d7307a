//! Matrix products by instruction set.
//!
//! [`matmul`] multiplies activations by a packed weight; the `matmul_*` of two letters are small products of plain
//! slices. All run on the threads of [`parallel`](crate::parallel). Every
//! output element has one order of additions, fixed by the number of inputs and the instruction set alone.
//!
//! - `kernel`: what a microkernel is; `portable`, `avx2`, `avx512`, `avx512bf16`, `amx`: the microkernels
//! - `integers`: both sides as integers, and the microkernels for them
//! - `drive`: blocking and threads; `batch`: what a task does with some rows
//! - `row_blocks`: a task's rows, cut for the microkernels
//! - `pack`: packing of activations
//! - `round`: rounding to bf16
//! - `stored`: the products with a weight in the blocks of its file
//! - `low_rank`: a packed weight with an update of low rank beside it
//! - `narrow`: the gradients of such an update
//! - `tiles`: small products of what the caller packs
//! - `dense`: the products without a packed weight

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod batch;
mod dense;
mod drive;
mod integers;
mod kernel;
mod low_rank;
mod narrow;
mod pack;
mod portable;
mod round;
mod row_blocks;
mod stored;
#[cfg(test)]
mod tests;
mod tiles;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{ask_for as ask_for_avx512, store as store_avx512};
pub use dense::{matmul_nn, matmul_nt, matmul_tn};
pub(crate) use integers::{factor_lines, find_factors};
pub use kernel::arithmetic;
pub use low_rank::{LowRank, LowRankFactors, matmul_low_rank};
pub use narrow::{Columns, ResultRows, outer_products};
pub(crate) use round::{bf16_bits, round_pairs, round_row};
pub use stored::{matmul_stored, matmul_stored_transposed};
pub(crate) use tiles::{LINE_WORDS, TileKernels, TileProduct, right_lines};

use self::drive::{Beside, Panels, Product, Target, chunk_depth};
use self::pack::{Part, pack_rows};
use crate::buffer::Line;
use crate::panels::INPUT_BLOCK;
use crate::{InstructionSet, PackedMatrix, Values, ValuesMut};

/// What happens with the previous contents of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulate {
    /// The result replaces what was there.
    Overwrite,
    /// The result is added to what was there.
    Add,
}

/// `y[m, rows] (=|+=) x[m, columns] W^T`, row-major f32, on the best instruction set.
///
/// With a bf16 matrix `x` is rounded to bf16 (nearest even) first, with the same bits on every instruction set; sums
/// are f32. Row `i` of the result depends on row `i` of `x` alone: not on `m`, nor on the number of threads.
///
/// # Panics
/// If the length of `x` is not `m * w.columns()` or that of `y` is not `m * w.rows()`.
pub fn matmul(x: &[f32], m: usize, w: &PackedMatrix, y: &mut [f32], accumulate: Accumulate) {
    matmul_with(InstructionSet::detect(), x, m, w, y, accumulate);
}

/// [`matmul`] on a named instruction set, lowered to what this CPU has.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_with(isa: InstructionSet, x: &[f32], m: usize, w: &PackedMatrix, y: &mut [f32], accumulate: Accumulate) {
    let kernels = kernel::packed(isa.usable(), w.precision());
    // A matrix that was packed for other instructions has no factors for those of integers.
    let kernels = if w.factors().is_empty() { kernels.of_floats() } else { kernels };
    multiply_with(kernels, x, m, w, y, accumulate);
}

/// [`matmul`] from and into f32 or bf16.
///
/// Values that are bf16 already give the bits that their f32 would give, and a result in bf16 is the f32 result rounded.
///
/// # Panics
/// As [`matmul`], and where a result in bf16 is to be added.
pub fn matmul_values(x: Values<'_>, m: usize, w: &PackedMatrix, y: ValuesMut<'_>, accumulate: Accumulate) {
    multiply_values(kernel::packed(InstructionSet::detect(), w.precision()), x, m, w, y, accumulate);
}

/// [`matmul`] with the microkernels given.
fn multiply_with(
    kernels: &'static kernel::Kernels,
    x: &[f32],
    m: usize,
    w: &PackedMatrix,
    y: &mut [f32],
    accumulate: Accumulate,
) {
    multiply_values(kernels, Values::F32(x), m, w, ValuesMut::F32(y), accumulate);
}

/// [`matmul_values`] with the microkernels given.
fn multiply_values(
    kernels: &'static kernel::Kernels,
    x: Values<'_>,
    m: usize,
    w: &PackedMatrix,
    y: ValuesMut<'_>,
    accumulate: Accumulate,
) {
    multiply_beside(kernels, x, m, w, None, y, accumulate);
}

/// [`multiply_values`], with a product of low rank beside it if there is one.
fn multiply_beside(
    kernels: &'static kernel::Kernels,
    x: Values<'_>,
    m: usize,
    w: &PackedMatrix,
    beside: Option<Beside<'_>>,
    y: ValuesMut<'_>,
    accumulate: Accumulate,
) {
    let columns = w.columns();
    assert_eq!(x.len(), m * columns, "the activations have the wrong length for {m} x {columns}");
    let groups = columns.next_multiple_of(INPUT_BLOCK) / kernels.activation.group_inputs();
    let pack = |part: Part, lines: &mut [Line]| pack_rows(kernels, x, columns, &part, lines);
    let depth = chunk_depth(kernels, groups);
    let y = Target { values: y, stride: w.rows(), first: 0 };
    Product { kernels, panels: Panels::of(w), groups: 0..groups, depth, m, n: w.rows(), pack, beside }
        .run(y, accumulate == Accumulate::Add);
}

/// Whether this CPU and operating system have AMX and its products are right.
#[cfg(target_arch = "x86_64")]
pub(crate) fn amx_works() -> bool {
    if !amx::permitted() {
        return false;
    }
    // On a pool and a thread of its own: a worker that waits in the global pool could take up a task that waits for the
    // outcome of this very detection.
    let check = || match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(|| self_check(&amx::TILES)),
        Err(_) => false,
    };
    std::thread::scope(|scope| scope.spawn(check).join().unwrap_or(false))
}

/// A small product with every case of padding against the plain kernels, within the tolerance of bf16 products.
#[cfg(target_arch = "x86_64")]
fn self_check(kernels: &'static kernel::Kernels) -> bool {
    use crate::Precision;
    let (m, rows, columns) = (51, 75, 1100);
    let value = |index: usize| ((index * 2_654_435_761) >> 7 & 0xffff) as f32 / 32768.0 - 1.0;
    // The best instruction set is not known yet, and asking for it would wait for this very check.
    let w = PackedMatrix::pack_of_floats(Precision::Bf16, rows, columns, &|r, row| {
        row.iter_mut().enumerate().for_each(|(c, x)| *x = value(r * columns + c));
    });
    let x: Vec<f32> = (0..m * columns).map(|index| value(index + 77)).collect();
    let (mut plain, mut fast) = (vec![1.0; m * rows], vec![1.0; m * rows]);
    multiply_with(&portable::FAMILY.widened, &x, m, &w, &mut plain, Accumulate::Add);
    multiply_with(kernels, &x, m, &w, &mut fast, Accumulate::Add);
    // Each of the 1,100 products is below 1: f32 sums in any order agree far better than this.
    plain.iter().zip(&fast).all(|(plain, fast)| (plain - fast).abs() < 1e-3)
}
