//! Every microkernel against the plain one, bit by bit, and the plain one against the product on the blocks of the file.

use super::kernel::Instructions;
use super::{Int8Matrix, Int8Rows, matmul_int8, multiply};
use crate::block_product::testing::{TYPES, activations, bits, rows};
use crate::{Accumulate, BlockType, InstructionSet, Precision, QuantizedRows, StoredMatrix, Values, matmul_quantized};

fn int8_rows(x: &[f32], m: usize, columns: usize) -> Int8Rows {
    let mut rounded = Int8Rows::default();
    rounded.quantize(Values::F32(x), m, columns);
    rounded
}

fn product(instructions: Instructions, x: &[f32], m: usize, w: &Int8Matrix) -> Vec<f32> {
    let mut y = vec![f32::NAN; m * w.rows()];
    multiply(instructions, &int8_rows(x, m, w.columns()), w, &mut y, Accumulate::Overwrite);
    y
}

fn matrix(parts: &[(BlockType, usize)], columns: usize) -> StoredMatrix {
    let parts =
        parts.iter().enumerate().map(|(seed, (block_type, count))| rows(*block_type, *count, columns, seed as u64));
    StoredMatrix::new(Precision::Bf16, parts.collect())
}

#[test]
fn all_instruction_sets_give_the_bits_of_the_plain_product() {
    let best = *InstructionSet::available().last().expect("one at least");
    for block_type in TYPES {
        for columns in [32, 64, 96, 160, 256, 576, 1536] {
            if block_type.row_bytes(columns).is_none() {
                continue;
            }
            let w = Int8Matrix::pack(&matrix(&[(block_type, 70)], columns));
            for m in [1, 2, 3, 4, 5, 6, 17] {
                let x = activations(m * columns, 5);
                let plain = product(Instructions::Plain, &x, m, &w);
                assert!(plain.iter().all(|value| value.is_finite()));
                for instructions in Instructions::available(best) {
                    let own = product(instructions, &x, m, &w);
                    assert!(bits(&own) == bits(&plain), "{block_type}, {m} x {columns}, {instructions:?}");
                }
            }
        }
    }
}

#[test]
fn the_product_is_that_of_the_blocks_but_for_the_order_of_additions() {
    for block_type in TYPES {
        let (m, columns) = (7, 768);
        let stored = matrix(&[(block_type, 50)], columns);
        let x = activations(m * columns, 10);
        let own = product(Instructions::Plain, &x, m, &Int8Matrix::pack(&stored));
        let mut rounded = QuantizedRows::default();
        rounded.quantize(Values::F32(&x), m, columns);
        let mut blocks = vec![0.0; own.len()];
        matmul_quantized(&rounded, &stored, &mut blocks, Accumulate::Overwrite);
        // Weights are below 3.2 (63 x 0.05), activations below 3: sums of 768 products, in f32.
        for (own, blocks) in own.iter().zip(&blocks) {
            assert!((own - blocks).abs() <= 2e-4 * blocks.abs().max(1.0), "{block_type}: {own} and {blocks}");
        }
    }
}

#[test]
fn neighbours_threads_and_parts_change_no_bit() {
    let (columns, m) = (512, 23);
    let parts = [(BlockType::Q4K, 700), (BlockType::Q8_0, 33), (BlockType::Q6K, 300), (BlockType::Q5_0, 5)];
    let w = Int8Matrix::pack(&matrix(&parts, columns));
    assert_eq!((w.rows(), w.columns()), (1038, columns));
    let x = activations(m * columns, 4);
    let threads = |count| rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("pool");
    let all = |x: &[f32], m: usize| {
        let mut y = vec![0.5; m * w.rows()];
        matmul_int8(&int8_rows(x, m, columns), &w, &mut y, Accumulate::Add);
        y
    };
    let together = threads(1).install(|| all(&x, m));
    assert!(bits(&together) == bits(&threads(3).install(|| all(&x, m))));
    for (row, own) in x.chunks_exact(columns).enumerate() {
        let alone = threads(2).install(|| all(own, 1));
        assert!(bits(&alone) == bits(&together[row * w.rows()..][..w.rows()]), "row {row}");
    }
    let mut first = 0;
    for (seed, (block_type, count)) in parts.into_iter().enumerate() {
        let own = StoredMatrix::new(Precision::Bf16, vec![rows(block_type, count, columns, seed as u64)]);
        let y = product(Instructions::Plain, &x[..columns], 1, &Int8Matrix::pack(&own));
        assert!(y.iter().zip(&together[first..]).all(|(y, all)| (0.5 + y).to_bits() == all.to_bits()), "{block_type}");
        first += count;
    }
}

#[test]
fn values_in_bf16_are_rounded_as_their_f32() {
    let x: Vec<crate::bf16> = activations(3 * 64, 1).into_iter().map(crate::bf16::from_f32).collect();
    let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let mut rounded = int8_rows(&[0.0; 640], 10, 64);
    rounded.quantize(Values::Bf16(&x), 3, 64);
    let w = Int8Matrix::pack(&matrix(&[(BlockType::Q4_1, 3)], 64));
    let mut y = [0.0; 9];
    matmul_int8(&rounded, &w, &mut y, Accumulate::Overwrite);
    assert_eq!(bits(&y), bits(&product(Instructions::Plain, &wide, 3, &w)));
}

#[test]
fn strange_activations_are_not_hidden() {
    let w = Int8Matrix::pack(&matrix(&[(BlockType::Q4_1, 3)], 64));
    for strange in [f32::NAN, f32::INFINITY] {
        let mut x = activations(64, 2);
        x[40] = strange;
        assert!(product(Instructions::Plain, &x, 1, &w).iter().all(|value| value.is_nan()));
    }
    assert_eq!(product(Instructions::Plain, &[0.0; 64], 1, &w), [0.0; 3]);
}
