//! The encoders against the decoders of `kernels`: bounds, corners, and values that nobody should quantize.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

use espalier_kernels::BlockType;
use espalier_kernels::blocks::decode;
use espalier_quantize::encode::{ENCODABLE, EncodeError, encode, encode_into, weighs_importance};
use espalier_quantize::{error_bound, relative_error};
use proptest::prelude::*;

/// Largest difference as a part of the largest magnitude in its block, after encoding and decoding.
fn round_trip_error(block_type: BlockType, values: &[f32]) -> f32 {
    let mut bytes = Vec::new();
    encode(block_type, values, None, &mut bytes).unwrap();
    let mut decoded = vec![0.0; values.len()];
    decode(block_type, &bytes, &mut decoded).unwrap();
    relative_error(block_type, values, &decoded)
}

/// A fixed pseudo-random sequence, near normal.
fn weights(count: usize, deviation: f32) -> Vec<f32> {
    let mut state = 1_u64;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let sum: i64 = (0..4).map(|part| ((state >> (16 * part)) & 0xFFFF) as i64).sum();
            (sum - 131_070) as f32 / 37_837.0 * deviation
        })
        .collect()
}

#[test]
fn every_type_stays_within_its_bound_on_weights() {
    let values = weights(64 * 256, 0.05);
    for block_type in ENCODABLE {
        let error = round_trip_error(block_type, &values);
        assert!(error <= error_bound(block_type), "{}: {error} > {}", block_type.name(), error_bound(block_type));
    }
}

#[test]
fn more_bits_mean_less_error() {
    let values = weights(64 * 256, 0.05);
    let mean_square = |block_type: BlockType| -> f64 {
        let mut bytes = Vec::new();
        encode(block_type, &values, None, &mut bytes).unwrap();
        let mut decoded = vec![0.0; values.len()];
        decode(block_type, &bytes, &mut decoded).unwrap();
        values.iter().zip(&decoded).map(|(value, decoded)| f64::from(value - decoded).powi(2)).sum()
    };
    for pair in [
        [BlockType::Tq2_0, BlockType::Q2K],
        [BlockType::Q2K, BlockType::Q3K],
        [BlockType::Mxfp4, BlockType::Iq4Xs],
        [BlockType::Iq4Xs, BlockType::Iq4Nl],
        [BlockType::Q3K, BlockType::Q4_0],
        [BlockType::Q4_0, BlockType::Q4K],
        [BlockType::Q4K, BlockType::Q5_0],
        [BlockType::Q5_0, BlockType::Q5K],
        [BlockType::Q5K, BlockType::Q6K],
        [BlockType::Q6K, BlockType::Q8_0],
        [BlockType::Q8_0, BlockType::F16],
    ] {
        let [worse, better] = pair.map(mean_square);
        assert!(worse > better, "{} {worse} {} {better}", pair[0].name(), pair[1].name());
    }
}

#[test]
fn zeros_and_equal_values_come_back() {
    for block_type in ENCODABLE {
        assert_eq!(round_trip_error(block_type, &[0.0; 512]), 0.0, "{}", block_type.name());
        let equal = round_trip_error(block_type, &[-0.5; 512]);
        assert!(equal < 2e-3, "{}: {equal}", block_type.name());
    }
}

#[test]
fn blocks_do_not_see_their_neighbours() {
    // Longer than a task of the thread pool, so that the split is crossed.
    let values = weights(300 * 256, 1.0);
    for block_type in ENCODABLE {
        let mut together = Vec::new();
        encode(block_type, &values, None, &mut together).unwrap();
        let mut apart = Vec::new();
        for row in values.chunks(256) {
            encode(block_type, row, None, &mut apart).unwrap();
        }
        assert!(together == apart, "{}", block_type.name());
    }
}

/// Importance of columns: a heavy tail, and some of none.
fn importance(columns: usize) -> Vec<f32> {
    let column = |(index, value): (usize, f32)| if index % 17 == 3 { 0.0 } else { value.powi(6) };
    weights(columns, 2.0).into_iter().enumerate().map(column).collect()
}

#[test]
fn rows_do_not_see_their_neighbours_with_importance() {
    // Rows of 1280: five blocks of 256, so that batches cross rows; more rows than a task has.
    let (values, importance) = (weights(40 * 1280, 1.0), importance(1280));
    for block_type in ENCODABLE {
        let mut together = Vec::new();
        encode(block_type, &values, Some(&importance), &mut together).unwrap();
        let mut apart = Vec::new();
        for row in values.chunks(1280) {
            encode(block_type, row, Some(&importance), &mut apart).unwrap();
        }
        assert!(together == apart, "{block_type}");
        let mut even = Vec::new();
        encode(block_type, &values, None, &mut even).unwrap();
        assert_eq!(together != even, weighs_importance(block_type), "{block_type}");
    }
}

#[test]
fn importance_lowers_the_errors_that_it_weighs() {
    let (values, importance) = (weights(32 * 1024, 0.05), importance(1024));
    let error = |block_type: BlockType, weights: Option<&[f32]>| -> f64 {
        let mut bytes = Vec::new();
        encode(block_type, &values, weights, &mut bytes).unwrap();
        let mut decoded = vec![0.0; values.len()];
        decode(block_type, &bytes, &mut decoded).unwrap();
        let pairs = values.iter().zip(&decoded).zip(importance.iter().cycle());
        pairs.map(|((value, decoded), weight)| f64::from(*weight) * f64::from(value - decoded).powi(2)).sum()
    };
    for block_type in ENCODABLE.into_iter().filter(|block_type| weighs_importance(*block_type)) {
        let (weighed, even) = (error(block_type, Some(&importance)), error(block_type, None));
        assert!(weighed < 0.9 * even, "{block_type}: {weighed} {even}");
    }
}

#[test]
fn importance_that_does_not_fit_is_refused() {
    let values = [0.5; 1024];
    let refused = |columns: usize, change: &dyn Fn(&mut Vec<f32>)| {
        let mut importance = vec![1.0; columns];
        change(&mut importance);
        encode(BlockType::Q4K, &values, Some(&importance), &mut Vec::new()).unwrap_err()
    };
    for columns in [0, 32, 300, 768] {
        assert_eq!(refused(columns, &|_| {}), EncodeError::ImportanceLength { columns, elements: 1024 });
    }
    assert_eq!(refused(512, &|row| row[7] = -1.0), EncodeError::Importance { column: 7, value: -1.0 });
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(refused(512, &|row| row[9] = bad).to_string().contains("the importance of column 9 is"));
    }
}

#[test]
fn zeros_keep_to_zero_whatever_their_importance() {
    let importance = importance(512);
    for block_type in ENCODABLE {
        for importance in [&importance, &vec![0.0; 512]] {
            let mut bytes = Vec::new();
            encode(block_type, &[0.0; 1024], Some(importance), &mut bytes).unwrap();
            let mut decoded = vec![1.0; 1024];
            decode(block_type, &bytes, &mut decoded).unwrap();
            assert!(decoded.iter().all(|value| *value == 0.0), "{block_type}");
        }
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = weights(80 * 256, 1.0);
        values[20_001] = bad;
        values[20_002] = bad;
        for block_type in ENCODABLE {
            let mut out = vec![7];
            let error = encode(block_type, &values, None, &mut out).unwrap_err();
            assert!(matches!(error, EncodeError::NotFinite { index: 20_001, .. }), "{error}");
            assert_eq!(out, [7]);
        }
    }
}

#[test]
fn values_beyond_half_precision_are_refused_with_their_block() {
    let mut values = vec![1.0; 1024];
    values[700] = 1e30;
    for (block_type, first) in
        [(BlockType::Q4_0, 672), (BlockType::Q8_0, 672), (BlockType::Q4K, 512), (BlockType::F16, 700)]
    {
        let error = encode(block_type, &values, None, &mut Vec::new()).unwrap_err();
        assert_eq!(error, EncodeError::Overflow { block_type, index: first });
    }
    encode(BlockType::F32, &values, None, &mut Vec::new()).unwrap();
    encode(BlockType::Bf16, &values, None, &mut Vec::new()).unwrap();
}

#[test]
fn lengths_are_checked() {
    let error = encode(BlockType::Q4K, &[0.0; 300], None, &mut Vec::new()).unwrap_err();
    assert_eq!(error, EncodeError::PartialBlock { block_type: BlockType::Q4K, elements: 300 });
    let error = encode_into(BlockType::Q8_0, &[0.0; 64], None, &mut [0; 67]).unwrap_err();
    assert_eq!(error, EncodeError::OutputLength { block_type: BlockType::Q8_0, needed: 68, given: 67 });
}

/// Rows of 512 from far below to near the top of half precision, with runs of one sign and zeros among them.
fn rows() -> impl Strategy<Value = Vec<f32>> {
    let group = prop_oneof![
        prop::collection::vec(-1.0f32..1.0, 32),
        prop::collection::vec(0.0f32..1.0, 32),
        Just(vec![0.0; 32]),
        (-1.0f32..1.0).prop_map(|value| vec![value; 32]),
    ];
    (prop::collection::vec(group, 16), -9.0f32..4.0)
        .prop_map(|(groups, exponent)| groups.concat().iter().map(|value| value * 10f32.powf(exponent)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_types_with_one_scale_keep_their_bound(values in rows()) {
        for block_type in
            [BlockType::Q4_0, BlockType::Q4_1, BlockType::Q5_0, BlockType::Q5_1, BlockType::Q8_0, BlockType::Bf16]
        {
            let error = round_trip_error(block_type, &values);
            prop_assert!(error <= error_bound(block_type), "{} {error}", block_type.name());
        }
    }

    #[test]
    fn any_bits_give_blocks_or_an_error(bits in prop::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for block_type in ENCODABLE {
            let mut out = Vec::new();
            match encode(block_type, &values, None, &mut out) {
                Ok(()) => prop_assert_eq!(out.len(), 256 / block_type.block_size() * block_type.block_bytes()),
                Err(_) => prop_assert!(out.is_empty()),
            }
        }
    }

    #[test]
    fn any_importance_gives_blocks_or_an_error(bits in prop::collection::vec(any::<u32>(), 512), mask in 0u32..8) {
        let values: Vec<f32> = bits[..256].iter().map(|bits| f32::from_bits(bits & !(mask << 28) & !(1 << 30))).collect();
        let importance: Vec<f32> = bits[256..].iter().map(|bits| f32::from_bits(bits & 0x7FFF_FFFF)).collect();
        for block_type in ENCODABLE {
            let _ = encode(block_type, &values, Some(&importance), &mut Vec::new());
        }
    }

    #[test]
    fn any_finite_bits_are_encoded_without_a_panic(bits in prop::collection::vec(any::<u32>(), 256), mask in 0u32..8) {
        // Clearing exponent bits gives denormals and every smaller range.
        let values: Vec<f32> = bits
            .into_iter()
            .map(|bits| f32::from_bits(bits & !(mask << 28) & !(1 << 30)))
            .collect();
        for block_type in ENCODABLE {
            let _ = encode(block_type, &values, None, &mut Vec::new());
        }
    }
}
