//! Refined blocks against those of the encoders: never worse, mostly better, of the same format.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

#[path = "support/importance.rs"]
mod importance;
#[path = "support/random_llama.rs"]
mod random_llama;

use std::path::Path;

use espalier_kernels::BlockType;
use espalier_kernels::blocks::decode;
use espalier_model::Model;
use espalier_quantize::encode::{ENCODABLE, encode, refine, weighs_importance};
use espalier_quantize::{FileType, ImportanceSource, QuantizeOptions, quantize};

const COLUMNS: usize = 1280;

/// Rows near normal, with outliers, rows of one sign, and zeros.
fn rows() -> Vec<f32> {
    let mut state = 7_u64;
    (0..48 * COLUMNS)
        .map(|index| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let sum: i64 = (0..4).map(|part| ((state >> (16 * part)) & 0xFFFF) as i64).sum();
            let value = (sum - 131_070) as f32 / 37_837.0 * 0.05;
            match index / COLUMNS {
                0 => 0.0,
                1 => value.abs(),
                2 if index % 61 == 0 => 40.0 * value,
                3 => value * 1e-6,
                _ => value,
            }
        })
        .collect()
}

fn importance() -> Vec<f32> {
    (0..COLUMNS)
        .map(|column| if column % 29 == 3 { 0.0 } else { ((column * 37 % 101) as f32 / 50.0).powi(4) })
        .collect()
}

/// The weighted error of each block.
fn errors(block_type: BlockType, values: &[f32], weights: &[f32], bytes: &[u8]) -> Vec<f64> {
    let mut decoded = vec![0.0; values.len()];
    decode(block_type, bytes, &mut decoded).unwrap();
    let squares = values.iter().zip(&decoded).zip(weights.iter().cycle());
    let squares: Vec<f64> =
        squares.map(|((value, decoded), weight)| f64::from(*weight) * f64::from(value - decoded).powi(2)).collect();
    squares.chunks(block_type.block_size()).map(|block| block.iter().sum()).collect()
}

#[test]
fn no_block_gets_worse_and_most_get_better() {
    let (values, weights) = (rows(), importance());
    for block_type in ENCODABLE {
        for importance in [None, Some(weights.as_slice())] {
            let even = vec![1.0; COLUMNS];
            let counted = importance.unwrap_or(&even);
            let mut bytes = Vec::new();
            encode(block_type, &values, importance, &mut bytes).unwrap();
            let before = errors(block_type, &values, counted, &bytes);
            let plain = bytes.clone();
            refine(block_type, &values, importance, &mut bytes).unwrap();
            if !weighs_importance(block_type) {
                assert!(bytes == plain, "{block_type}");
                continue;
            }
            let after = errors(block_type, &values, counted, &bytes);
            assert!(before.iter().zip(&after).all(|(before, after)| after <= before), "{block_type}");
            let [total_before, total_after] = [before, after].map(|errors| errors.iter().sum::<f64>());
            let kept = total_after / total_before;
            println!("{block_type} {}: {:.1} % of the error is left", importance.is_some(), 100.0 * kept);
            assert!(kept < 0.99, "{block_type}, with importance {}: {kept}", importance.is_some());
        }
    }
}

#[test]
fn rows_are_refined_alone() {
    let (values, weights) = (rows(), importance());
    for block_type in ENCODABLE {
        let mut together = Vec::new();
        encode(block_type, &values, Some(&weights), &mut together).unwrap();
        let mut apart = together.clone();
        refine(block_type, &values, Some(&weights), &mut together).unwrap();
        let row_bytes = block_type.row_bytes(COLUMNS).unwrap();
        for (row, bytes) in values.chunks(COLUMNS).zip(apart.chunks_mut(row_bytes)) {
            refine(block_type, row, Some(&weights), bytes).unwrap();
        }
        assert!(together == apart, "{block_type}");
    }
}

#[test]
fn lengths_are_checked() {
    refine(BlockType::Q4K, &[0.0; 300], None, &mut [0; 144]).unwrap_err();
    refine(BlockType::Q4K, &[0.0; 256], None, &mut [0; 143]).unwrap_err();
    refine(BlockType::Q4K, &[0.0; 512], Some(&[1.0; 384]), &mut [0; 288]).unwrap_err();
    refine(BlockType::Q4K, &[], None, &mut []).unwrap();
}

#[test]
fn a_refined_file_says_so_and_passes_its_check() {
    let folder = tempfile::tempdir().unwrap();
    let stories = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"));
    let path = folder.path().join("random.gguf");
    random_llama::write(&Model::open(stories).unwrap(), &path).unwrap();
    let model = Model::open(&path).unwrap();
    let importance = ImportanceSource { matrix: importance::by_formula(&model), file: "rows.gguf".to_owned() };
    for importance in [None, Some(importance)] {
        let out = folder.path().join("refined.gguf");
        let options = QuantizeOptions { importance, refine: true, ..QuantizeOptions::default() };
        for file_type in
            [FileType::Q4_0, FileType::Q5_1, FileType::IQ4_XS, FileType::Q2_K, FileType::Q3_K_L, FileType::Q4_K_M]
        {
            let report = quantize(&model, None, file_type, &out, &options, &mut |_| {}).unwrap();
            assert!(report.tensors.iter().all(|tensor| tensor.refined == weighs_importance(tensor.to)), "{file_type}");
            let written = Model::open(&out).unwrap();
            assert_eq!(written.metadata().get_str("espalier.rounding").unwrap(), Some("refined"));
        }
    }
}
