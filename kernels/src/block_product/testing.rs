//! Made-up weights and activations for tests of products.

use std::sync::Arc;

use half::f16;

use crate::{BlockRows, BlockType};

/// The types that have a product.
pub(crate) const TYPES: [BlockType; 8] = [
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q8_0,
    BlockType::Q4K,
    BlockType::Q5K,
    BlockType::Q6K,
];

/// Numbers that look random.
fn mixed(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Values between -3 and 3.
pub(crate) fn activations(count: usize, seed: u64) -> Vec<f32> {
    let mut next = mixed(seed);
    (0..count).map(|_| ((next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * 3.0).collect()
}

/// Blocks of any bits, with finite scales.
pub(crate) fn rows(block_type: BlockType, rows: usize, columns: usize, seed: u64) -> BlockRows {
    let mut next = mixed(seed);
    let block = block_type.block_bytes();
    let mut bytes: Vec<u8> = (0..rows * block_type.row_bytes(columns).expect("whole")).map(|_| next() as u8).collect();
    let factors: &[usize] = match block_type {
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q6K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(block) {
        for &at in factors {
            let value = (next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
            block[at..at + 2].copy_from_slice(&f16::from_f32(value * 0.1).to_le_bytes());
        }
    }
    let range = 0..bytes.len();
    BlockRows::new(block_type, columns, Arc::new(bytes), range).expect("whole rows")
}

/// Floats, to be compared bit by bit.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
