//! Every body against the plain one, bit by bit, and the plain one against decoded weights in f64.

use super::testing::{TYPES, activations, bits, rows};
use super::{Instructions, QuantizedRows, has_block_product, matmul_quantized, multiply};
use crate::{Accumulate, BlockType, InstructionSet, Precision, StoredMatrix, Values, blocks};

fn product(instructions: Instructions, x: &[f32], m: usize, w: &StoredMatrix) -> Vec<f32> {
    let mut quantized = QuantizedRows::default();
    quantized.quantize(Values::F32(x), m, w.columns());
    let mut y = vec![f32::NAN; m * w.rows()];
    multiply(instructions, &quantized, w, &mut y, Accumulate::Overwrite);
    y
}

#[test]
fn all_instruction_sets_give_the_bits_of_the_plain_product() {
    let best = *InstructionSet::available().last().expect("one at least");
    for block_type in TYPES {
        for columns in [32, 64, 96, 128, 160, 256, 576, 768, 1536, 4864] {
            if block_type.row_bytes(columns).is_none() {
                continue;
            }
            let w = StoredMatrix::new(Precision::F32, vec![rows(block_type, 37, columns, columns as u64)]);
            let x = activations(7 * columns, 5);
            let plain = product(Instructions::Plain, &x, 7, &w);
            assert!(plain.iter().all(|value| value.is_finite()));
            for instructions in Instructions::available(best) {
                let own = product(instructions, &x, 7, &w);
                assert!(bits(&own) == bits(&plain), "{block_type}, {columns} columns, {instructions:?}");
            }
        }
    }
}

#[test]
fn the_error_is_that_of_rounding_the_activations() {
    for block_type in TYPES {
        let (m, columns) = (3, 768);
        let part = rows(block_type, 50, columns, 9);
        let x = activations(m * columns, 10);
        let w = StoredMatrix::new(Precision::F32, vec![part.clone()]);
        let y = product(Instructions::Plain, &x, m, &w);
        let mut weights = vec![0.0; columns];
        for row in 0..50 {
            part.row(row, &mut weights);
            for (index, x) in x.chunks_exact(columns).enumerate() {
                let truth: f64 = x.iter().zip(&weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                // Each number is off by half of its block's scale at most; f32 sums add a few parts in a million.
                let bound: f64 = x
                    .chunks_exact(32)
                    .zip(weights.chunks_exact(32))
                    .map(|(x, w)| {
                        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                        let sum: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
                        f64::from(largest) * sum * (0.5 / 127.0 + 4e-6)
                    })
                    .sum();
                let error = (f64::from(y[index * 50 + row]) - truth).abs();
                assert!(error <= bound, "{block_type}: {error:e} above {bound:e}");
                assert!(
                    bound < 0.05 * weights.iter().map(|w| f64::from(w.abs())).sum::<f64>(),
                    "a bound that says something"
                );
            }
        }
    }
}

#[test]
fn neighbours_threads_and_parts_change_no_bit() {
    let columns = 512;
    let parts = [
        rows(BlockType::Q4K, 700, columns, 1),
        rows(BlockType::Q8_0, 33, columns, 2),
        rows(BlockType::Q5_0, 300, columns, 3),
    ];
    let w = StoredMatrix::new(Precision::F32, parts.to_vec());
    let x = activations(11 * columns, 4);
    let threads = |count| rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("pool");
    let all = |x: &[f32], m: usize| {
        let mut quantized = QuantizedRows::default();
        quantized.quantize(Values::F32(x), m, columns);
        let mut y = vec![0.5; m * w.rows()];
        matmul_quantized(&quantized, &w, &mut y, Accumulate::Add);
        y
    };
    let together = threads(1).install(|| all(&x, 11));
    assert!(bits(&together) == bits(&threads(3).install(|| all(&x, 11))));
    for (row, own) in x.chunks_exact(columns).enumerate() {
        let alone = threads(2).install(|| all(own, 1));
        assert!(bits(&alone) == bits(&together[row * w.rows()..][..w.rows()]));
    }
    let mut first = 0;
    for part in parts {
        let own = StoredMatrix::new(Precision::F32, vec![part.clone()]);
        let y = product(Instructions::Plain, &x[..columns], 1, &own);
        assert!(y.iter().zip(&together[first..]).all(|(y, all)| (0.5 + y).to_bits() == all.to_bits()));
        first += part.rows();
    }
}

#[test]
fn strange_activations_are_not_hidden() {
    let w = StoredMatrix::new(Precision::F32, vec![rows(BlockType::Q4_1, 3, 64, 1)]);
    for strange in [f32::NAN, f32::INFINITY] {
        let mut x = activations(64, 2);
        x[40] = strange;
        assert!(product(Instructions::Plain, &x, 1, &w).iter().all(|value| value.is_nan()));
    }
    assert_eq!(product(Instructions::Plain, &[0.0; 64], 1, &w), [0.0; 3]);
}

#[test]
fn types_without_a_product_are_known() {
    for block_type in BlockType::ALL {
        assert_eq!(has_block_product(block_type), TYPES.contains(&block_type));
        let decoded = blocks::decode(block_type, &[], &mut []);
        assert_eq!(decoded, Ok(()));
    }
}
