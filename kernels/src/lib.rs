//! CPU mathematics for Espalier: packed matrices, matrix products by instruction set, block formats and the fused
//! operations of a transformer, forward and backward.
//!
//! Nothing here knows a model, a file or burn. Every result has one fixed order of additions for each output element:
//! it does not depend on how many rows share a call, nor on the number of threads.

mod block_product;
pub mod blocks;
mod buffer;
#[cfg(target_arch = "x86_64")]
mod dot_pairs;
mod gemm;
mod int8;
mod isa;
mod matrix;
pub mod ops;
mod panels;
pub mod parallel;
mod stored;
mod transpose;
mod values;
mod widest;

pub use block_product::{QuantizedRows, has_block_product, matmul_quantized};
pub use blocks::{BlockError, BlockType};
pub use gemm::{
    Accumulate, Columns, LowRank, LowRankFactors, ResultRows, arithmetic, matmul, matmul_low_rank, matmul_nn,
    matmul_nt, matmul_stored, matmul_stored_transposed, matmul_tn, matmul_values, matmul_with, outer_products,
};
pub use half::bf16;
pub use int8::{Int8Matrix, Int8Rows, int8_is_fast, matmul_int8};
pub use isa::InstructionSet;
pub use matrix::{PackedMatrix, Precision, UnknownPrecision};
pub use stored::{BlockRows, SharedBytes, StoredMatrix};
pub use values::{Element, Values, ValuesMut};
pub use widest::{PlainWork, run_widest, run_with};
