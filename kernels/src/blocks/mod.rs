//! Block formats of GGUF tensors: their layouts and their decoding to `f32`.
//!
//! A quantized row is a sequence of blocks; a block holds a fixed number of elements with one or a few scales. All
//! numbers are little endian. Decoding uses plain multiplications and additions (never fused) in the order of ggml's
//! reference, so that the values are bit-equal to those of `dequantize_row_*`.

// Plain loops are compiled anew for each set of target features, which needs their bodies in the callers.
#![allow(clippy::inline_always)]

mod block_type;
mod few_levels;
mod float;
mod grids;
mod i_quants;
mod k_quants;
mod legacy;
mod nonlinear;

pub use block_type::BlockType;
pub use few_levels::{BlockQ1_0, BlockQ2_0, BlockTq1_0, BlockTq2_0};
pub(crate) use float::half_to_f32;
pub use i_quants::{BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs};
pub use k_quants::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, K_BLOCK, scale_and_minimum};
pub use legacy::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, LEGACY_BLOCK};
pub use nonlinear::{
    BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockNvfp4, FLOAT_LEVELS, NONLINEAR_LEVELS, half_of_exponent_scale,
};

/// Elements in a block of `NVFP4`.
const NVFP4_BLOCK: usize = 64;

/// Elements in a block of `Q1_0`.
const Q1_0_BLOCK: usize = 128;

/// Elements in a block of `Q2_0`.
const Q2_0_BLOCK: usize = 64;

/// Why a buffer of blocks was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes do not divide into whole blocks.
    #[error(
        "{bytes} bytes of {name} data are not whole blocks of {block_bytes} bytes; pass complete rows of the tensor",
        name = .block_type.name(),
        block_bytes = .block_type.block_bytes()
    )]
    PartialBlock {
        /// Type of the data.
        block_type: BlockType,
        /// Length of the data in bytes.
        bytes: usize,
    },
    /// The output has not as many elements as the blocks hold.
    #[error(
        "the {name} blocks hold {elements} elements but the output has room for {output}; \
         size the output to the elements of the blocks",
        name = .block_type.name()
    )]
    OutputLength {
        /// Type of the data.
        block_type: BlockType,
        /// Elements that the blocks hold.
        elements: usize,
        /// Length of the output.
        output: usize,
    },
}

/// Decodes whole blocks of one type to `f32`.
///
/// `bytes` needs no alignment. Values are bit-equal to ggml's `dequantize_row_*` compiled without contraction of
/// products and sums.
///
/// # Errors
///
/// When `bytes` is not a whole number of blocks, or `out` is not exactly as long as the elements in them.
pub fn decode(block_type: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
    let block_bytes = block_type.block_bytes();
    if !bytes.len().is_multiple_of(block_bytes) {
        return Err(BlockError::PartialBlock { block_type, bytes: bytes.len() });
    }
    let elements = bytes.len() / block_bytes * block_type.block_size();
    if elements != out.len() {
        return Err(BlockError::OutputLength { block_type, elements, output: out.len() });
    }
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the CPU has the features.
            unsafe { decode_avx512(block_type, bytes, out) };
            return Ok(());
        }
        if has!("avx2") {
            // SAFETY: the CPU has the feature.
            unsafe { decode_avx2(block_type, bytes, out) };
            return Ok(());
        }
    }
    decode_blocks(block_type, bytes, out);
    Ok(())
}

/// [`decode_blocks`] compiled for the widest registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn decode_avx512(block_type: BlockType, bytes: &[u8], out: &mut [f32]) {
    decode_blocks(block_type, bytes, out);
}

/// [`decode_blocks`] compiled for registers of 256 bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn decode_avx2(block_type: BlockType, bytes: &[u8], out: &mut [f32]) {
    decode_blocks(block_type, bytes, out);
}

/// Decodes whole blocks into as many values as they hold.
#[inline(always)]
fn decode_blocks(block_type: BlockType, bytes: &[u8], out: &mut [f32]) {
    match block_type {
        BlockType::F32 => float::decode_f32(bytes, out),
        BlockType::F16 => float::decode_f16(bytes, out),
        BlockType::Bf16 => float::decode_bf16(bytes, out),
        BlockType::Q4_0 => legacy::decode_q4_0(bytemuck::cast_slice(bytes), out),
        BlockType::Q4_1 => legacy::decode_q4_1(bytemuck::cast_slice(bytes), out),
        BlockType::Q5_0 => legacy::decode_q5_0(bytemuck::cast_slice(bytes), out),
        BlockType::Q5_1 => legacy::decode_q5_1(bytemuck::cast_slice(bytes), out),
        BlockType::Q8_0 => legacy::decode_q8_0(bytemuck::cast_slice(bytes), out),
        BlockType::Q2K => k_quants::decode_q2_k(bytemuck::cast_slice(bytes), out),
        BlockType::Q3K => k_quants::decode_q3_k(bytemuck::cast_slice(bytes), out),
        BlockType::Q4K => k_quants::decode_q4_k(bytemuck::cast_slice(bytes), out),
        BlockType::Q5K => k_quants::decode_q5_k(bytemuck::cast_slice(bytes), out),
        BlockType::Q6K => k_quants::decode_q6_k(bytemuck::cast_slice(bytes), out),
        BlockType::Iq4Nl => nonlinear::decode_iq4_nl(bytemuck::cast_slice(bytes), out),
        BlockType::Iq4Xs => nonlinear::decode_iq4_xs(bytemuck::cast_slice(bytes), out),
        BlockType::Mxfp4 => nonlinear::decode_mxfp4(bytemuck::cast_slice(bytes), out),
        BlockType::Nvfp4 => nonlinear::decode_nvfp4(bytemuck::cast_slice(bytes), out),
        BlockType::Tq1_0 => few_levels::decode_tq1_0(bytemuck::cast_slice(bytes), out),
        BlockType::Tq2_0 => few_levels::decode_tq2_0(bytemuck::cast_slice(bytes), out),
        BlockType::Q1_0 => few_levels::decode_q1_0(bytemuck::cast_slice(bytes), out),
        BlockType::Q2_0 => few_levels::decode_q2_0(bytemuck::cast_slice(bytes), out),
        BlockType::Iq1S => i_quants::decode_iq1_s(bytemuck::cast_slice(bytes), out),
        BlockType::Iq1M => i_quants::decode_iq1_m(bytemuck::cast_slice(bytes), out),
        BlockType::Iq2Xxs => i_quants::decode_iq2_xxs(bytemuck::cast_slice(bytes), out),
        BlockType::Iq2Xs => i_quants::decode_iq2_xs(bytemuck::cast_slice(bytes), out),
        BlockType::Iq2S => i_quants::decode_iq2_s(bytemuck::cast_slice(bytes), out),
        BlockType::Iq3Xxs => i_quants::decode_iq3_xxs(bytemuck::cast_slice(bytes), out),
        BlockType::Iq3S => i_quants::decode_iq3_s(bytemuck::cast_slice(bytes), out),
    }
}

#[cfg(test)]
mod tests;
