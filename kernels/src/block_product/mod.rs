//! Products of weights in the blocks of their file and activations of 8 bits, without decoding the weights.
//!
//! For one row the time of a product is that of reading the weight, and blocks are three times smaller than bf16. The
//! activations are rounded to 8 bits with a scale for each 32 ([`QuantizedRows`]), products of numbers are summed as
//! integers, which is exact, and the sums of a block are multiplied by both scales.
//!
//! Each element of the result has 16 partial sums in the order of the row, added in pairs at the end. Products and sums of
//! floats are never fused, so that its bits are the same on every instruction set, for any number of rows and threads.
//!
//! - `rows`: the activations
//! - `plain`: the types of blocks and the product in plain Rust
//! - `avx2`, `avx512`: the same by instruction set

// Plain loops are compiled anew for each set of target features, which needs their bodies in the callers.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use self::plain::{Second, Unpack, unpacker};
pub use self::rows::QuantizedRows;
pub(crate) use self::rows::{QUAD, ROUNDING, round_block, scales_of};

use self::rows::{BLOCK, Quad};
use crate::blocks::{BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0};
use crate::buffer::SharedMut;
use crate::{Accumulate, BlockType, InstructionSet, StoredMatrix, parallel};

/// Bytes of weights of a task: enough to pay for handing it over, few enough to stay near the core for all rows.
const TASK_BYTES: usize = 16 << 10;

/// Some rows of blocks.
struct Rows<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
}

/// What they are multiplied by, and where the results go.
struct Piece<'a> {
    activations: &'a [Quad],
    /// Quads of a row of the activations.
    per_row: usize,
    /// Activations.
    m: usize,
    result: SharedMut<f32>,
    /// Outputs of a row of the result.
    stride: usize,
    /// The output of the first row of blocks.
    first: usize,
    add: bool,
}

impl Rows<'_> {
    /// Multiplies every row by all activations, as many at a time as `M`; what is left over, one by one.
    #[inline(always)]
    fn each<const M: usize>(
        &self,
        piece: &Piece<'_>,
        from: usize,
        dot: impl Fn(&[u8], [&[Quad]; M]) -> [f32; M],
    ) -> usize {
        let mut from = from;
        while from + M <= piece.m {
            let activations =
                std::array::from_fn(|index| &piece.activations[(from + index) * piece.per_row..][..piece.per_row]);
            for (row, bytes) in self.bytes.chunks_exact(self.row_bytes).enumerate() {
                for (index, sum) in dot(bytes, activations).into_iter().enumerate() {
                    // SAFETY: `matmul_quantized` has checked the length of the result, and gives each row of blocks to one
                    // task only.
                    let place = unsafe { &mut *piece.result.at((from + index) * piece.stride + piece.first + row) };
                    *place = if piece.add { *place + sum } else { sum };
                }
            }
            from += M;
        }
        from
    }
}

/// The product of some rows of blocks.
///
/// # Safety
/// The CPU has the instructions of the body.
type Body = unsafe fn(&Rows<'_>, &Piece<'_>);

/// What a product may be computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 256 bits with `VPDPBUSD`.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// 512 bits with `VPDPBUSD` and the permutations of bytes (VBMI).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Instructions {
    /// Those that an instruction set allows and this CPU has, in rising order.
    fn available(isa: InstructionSet) -> Vec<Self> {
        #[allow(unused_mut, reason = "elsewhere there are no others")]
        let mut all = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            if isa >= InstructionSet::Avx2 && has!("f16c") {
                all.push(Self::Avx2);
                if has!("avxvnni") {
                    all.push(Self::AvxVnni);
                }
            }
            if isa >= InstructionSet::Avx512 && has!("avx512vnni") && has!("avx512vbmi") {
                all.push(Self::Avx512Vnni);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
        all
    }

    fn body(self, block_type: BlockType) -> Option<Body> {
        match self {
            Self::Plain => plain_body(block_type),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::body::<false>(block_type),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => avx2::body::<true>(block_type),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => avx512::body(block_type),
        }
    }
}

fn plain_body(block_type: BlockType) -> Option<Body> {
    Some(match block_type {
        BlockType::Q4_0 => plain::product::<BlockQ4_0>,
        BlockType::Q4_1 => plain::product::<BlockQ4_1>,
        BlockType::Q5_0 => plain::product::<BlockQ5_0>,
        BlockType::Q5_1 => plain::product::<BlockQ5_1>,
        BlockType::Q8_0 => plain::product::<BlockQ8_0>,
        BlockType::Q4K => plain::product::<BlockQ4K>,
        BlockType::Q5K => plain::product::<BlockQ5K>,
        BlockType::Q6K => plain::product::<BlockQ6K>,
        // All others are decoded first.
        _ => return None,
    })
}

/// Whether [`matmul_quantized`] takes blocks of this type.
pub fn has_block_product(block_type: BlockType) -> bool {
    plain_body(block_type).is_some()
}

/// `y[m, rows] (=|+=) x[m, columns] W^T` with activations of 8 bits, on the blocks as they lie in the file.
///
/// Row `i` of the result depends on row `i` of `x` alone: not on `m`, nor on the number of threads, nor on the instruction
/// set.
///
/// # Panics
/// If the columns differ, the length of `y` is not `x.rows() * w.rows()`, or a part of `w` has blocks of a type for which
/// [`has_block_product`] is false.
pub fn matmul_quantized(x: &QuantizedRows, w: &StoredMatrix, y: &mut [f32], accumulate: Accumulate) {
    static BEST: std::sync::OnceLock<Instructions> = std::sync::OnceLock::new();
    let best = BEST.get_or_init(|| {
        let available = Instructions::available(InstructionSet::detect());
        available.last().copied().unwrap_or(Instructions::Plain)
    });
    multiply(*best, x, w, y, accumulate);
}

/// [`matmul_quantized`] with the instructions given.
fn multiply(instructions: Instructions, x: &QuantizedRows, w: &StoredMatrix, y: &mut [f32], accumulate: Accumulate) {
    assert_eq!(x.columns(), w.columns(), "the activations have another number of columns than the weight");
    assert_eq!(y.len(), x.rows() * w.rows(), "the result has the wrong length for {} x {}", x.rows(), w.rows());
    if w.columns() == 0 {
        if accumulate == Accumulate::Overwrite {
            y.fill(0.0);
        }
        return;
    }
    assert!(w.columns().is_multiple_of(BLOCK), "rows of whole blocks");
    let result = SharedMut::new(y);
    let parts: Vec<(&[u8], usize, usize, Body)> = w
        .parts()
        .map(|(first, part)| {
            let body = instructions.body(part.block_type());
            (part.as_bytes(), part.row_bytes(), first, body.expect("a type of blocks that has a product"))
        })
        .collect();
    let task_rows = |row_bytes: usize| (TASK_BYTES / row_bytes).max(1);
    let tasks: Vec<usize> = parts
        .iter()
        .scan(0, |sum, (bytes, row_bytes, ..)| {
            *sum += (bytes.len() / row_bytes).div_ceil(task_rows(*row_bytes));
            Some(*sum)
        })
        .collect();
    parallel::for_each(tasks.last().copied().unwrap_or(0), |task| {
        let part = tasks.partition_point(|&end| end <= task);
        let (bytes, row_bytes, first, body) = parts[part];
        let begin = (task - if part == 0 { 0 } else { tasks[part - 1] }) * task_rows(row_bytes);
        let end = (begin + task_rows(row_bytes)).min(bytes.len() / row_bytes);
        let piece = Piece {
            activations: x.quads(),
            per_row: x.quads_per_row(),
            m: x.rows(),
            result,
            stride: w.rows(),
            first: first + begin,
            add: accumulate == Accumulate::Add,
        };
        // SAFETY: the instructions are among the available ones.
        unsafe { body(&Rows { bytes: &bytes[begin * row_bytes..end * row_bytes], row_bytes }, &piece) };
    });
}
