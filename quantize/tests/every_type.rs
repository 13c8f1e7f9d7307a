//! A model with matrices of every type that is read: the engine computes with it what it computes with their values in F32,
//! and it can be quantized again.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

#[path = "support/random_llama.rs"]
mod random_llama;

use std::path::{Path, PathBuf};

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::blocks::decode;
use espalier_kernels::{BlockType, Precision};
use espalier_model::Model;
use espalier_model::gguf::{GgufWriter, TensorHeader};
use espalier_quantize::{FileType, QuantizeOptions, quantize};

/// Where the half-precision scales of a block begin.
fn scales(block_type: BlockType) -> &'static [usize] {
    match block_type {
        BlockType::F32 | BlockType::F16 | BlockType::Bf16 | BlockType::Mxfp4 | BlockType::Nvfp4 | BlockType::Iq1M => {
            &[]
        }
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Tq1_0 => &[52],
        BlockType::Tq2_0 => &[64],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        _ => &[0],
    }
}

/// Any bits, under scales of 2^-10 or so.
fn any_blocks(block_type: BlockType, columns: usize, rows: usize) -> Vec<u8> {
    let mut state = 11_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut bytes: Vec<u8> = (0..rows * block_type.row_bytes(columns).unwrap()).map(|_| byte()).collect();
    for block in bytes.chunks_exact_mut(block_type.block_bytes()) {
        for &place in scales(block_type) {
            block[place + 1] = 0x14;
        }
        match block_type {
            // An exponent, four floats of a byte, and a half of which the highest bits lie in the last byte.
            BlockType::Mxfp4 => block[0] = 118,
            BlockType::Nvfp4 => block[..4].fill(3),
            BlockType::Iq1M => block[55] = 0x20 | (block[55] % 16),
            _ => {}
        }
    }
    bytes
}

/// The random llama, in F32, but `ffn_up` and the embedding of one block type, or their values.
fn write(source: &Model, block_type: BlockType, as_values: bool, path: &Path) -> PathBuf {
    let replaced = |name: &str| name.contains("ffn_up") || name == "token_embd.weight";
    let headers: Vec<TensorHeader> = source
        .tensors()
        .map(|info| TensorHeader {
            name: info.name.clone(),
            dimensions: info.dimensions.clone(),
            block_type: if replaced(&info.name) && !as_values { block_type } else { BlockType::F32 },
        })
        .collect();
    let mut writer = GgufWriter::create(path, source.metadata(), &headers).unwrap();
    for info in source.tensors() {
        let tensor = source.tensor(&info.name).unwrap();
        let mut bytes = tensor.raw().unwrap().to_vec();
        if replaced(&info.name) {
            bytes = any_blocks(block_type, info.columns, info.rows);
            if as_values {
                let mut values = vec![0.0; info.rows * info.columns];
                decode(block_type, &bytes, &mut values).unwrap();
                assert!(values.iter().all(|value| value.is_finite()), "{block_type}");
                bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            }
        }
        writer.write_tensor_data(&bytes).unwrap();
    }
    writer.finish().unwrap();
    path.to_owned()
}

fn logits(path: &Path) -> Vec<u32> {
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = NativeEngine::load(&Model::open(path).unwrap(), None, &options).unwrap();
    let mut logits = Vec::new();
    engine
        .logits_from(&[1, 400, 77, 300, 5], 0, &mut |_, rows| logits.extend(rows.iter().map(|x| x.to_bits())))
        .unwrap();
    logits
}

#[test]
fn the_engine_reads_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let stories = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"));
    let path = folder.path().join("random.gguf");
    random_llama::write(&Model::open(stories).unwrap(), &path).unwrap();
    let source = Model::open(&path).unwrap();
    for block_type in BlockType::ALL.into_iter().filter(|block_type| block_type.block_size() > 1) {
        let blocks = write(&source, block_type, false, &folder.path().join("blocks.gguf"));
        let values = write(&source, block_type, true, &folder.path().join("values.gguf"));
        let computed = logits(&blocks);
        assert!(computed.iter().all(|bits| f32::from_bits(*bits).is_finite()), "{block_type}");
        assert!(computed == logits(&values), "{block_type}");

        // What cannot be written is quantized to what can.
        let out = folder.path().join("again.gguf");
        let model = Model::open(&blocks).unwrap();
        let report = quantize(&model, None, FileType::Q8_0, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
        assert!(report.tensors.iter().all(|tensor| matches!(tensor.to, BlockType::Q8_0 | BlockType::F32)));
    }
}
