//! Quantized files against those of llama-quantize, from the same F32 file, with and without an importance matrix: SHA-256 of
//! the whole file, metadata and all.
//!
//! `tests/golden/files.sha256` was made by `scripts/quantize-parity.sh --golden`, which also says where two files differ.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

#[path = "support/importance.rs"]
mod importance;
#[path = "support/random_llama.rs"]
mod random_llama;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use espalier_kernels::BlockType;
use espalier_model::Model;
use espalier_quantize::{FileType, ImportanceSource, MixOptions, QuantizeOptions, quantize};
use sha2::{Digest, Sha256};

/// Lines `SHA256  MODEL.TYPE` and `SHA256  MODEL.imatrix.TYPE`; the F32 file is where the others come from.
const GOLDEN: &str = include_str!("golden/files.sha256");

fn golden(name: &str) -> Option<&'static str> {
    let line = GOLDEN.lines().find(|line| line.ends_with(&format!("  {name}")))?;
    line.split_whitespace().next()
}

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

fn sha256(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut file = File::open(path).unwrap();
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part).unwrap() {
            0 => break,
            length => hash.update(&part[..length]),
        }
    }
    let mut hex = String::new();
    for byte in hash.finalize() {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

/// Every golden line of the F32 file `path`, which has its name; gives their number.
fn check(path: &Path, folder: &Path) -> usize {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let source = golden(&format!("{name}.F32"));
    assert_eq!(Some(sha256(path).as_str()), source, "another model than the golden files were made from");
    let model = Model::open(path).unwrap();
    let matrix = importance::by_formula(&model);
    let out = folder.join("out.gguf");
    let (mut checked, mut different) = (0, Vec::new());
    for file_type in FileType::ALL.into_iter().filter(|file_type| *file_type != FileType::F32) {
        for weighed in [false, true] {
            let file = if weighed { format!("{name}.imatrix.{file_type}") } else { format!("{name}.{file_type}") };
            let Some(expected) = golden(&file) else { continue };
            let source = ImportanceSource { matrix: matrix.clone(), file: format!("{name}.imatrix.gguf") };
            let importance = weighed.then_some(source);
            let options = QuantizeOptions { importance, verify: false, ..QuantizeOptions::default() };
            quantize(&model, None, file_type, &out, &options, &mut |_| {}).unwrap();
            checked += 1;
            if sha256(&out) != expected {
                different.push(file);
            }
        }
    }
    assert!(different.is_empty(), "other bytes than llama-quantize's: {different:?}");
    checked
}

/// The F32 file of `model` in `folder`.
fn in_f32(model: &Model, folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.gguf"));
    quantize(model, None, FileType::F32, &path, &QuantizeOptions::default(), &mut |_| {}).unwrap();
    path
}

#[test]
fn the_260k_model_equals_llama_quantize() {
    let folder = tempfile::tempdir().unwrap();
    let files = check(&in_f32(&stories(), folder.path(), "stories260K"), folder.path());
    assert_eq!(files, 2 * (FileType::ALL.len() - 1));
}

#[test]
fn a_model_with_widths_of_256_equals_llama_quantize() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random_llama.gguf");
    random_llama::write(&stories(), &path).unwrap();
    // Q2_K_S is refused without importance.
    assert_eq!(check(&path, folder.path()), 2 * (FileType::ALL.len() - 1) - 1);

    // A type that is in no mix of a model without experts.
    let model = Model::open(&path).unwrap();
    let out = folder.path().join("out.gguf");
    let mix = MixOptions {
        tensor_types: vec!["ffn_up=mxfp4".parse().unwrap()],
        token_embedding_type: Some(BlockType::Mxfp4),
        ..MixOptions::default()
    };
    let options = QuantizeOptions { mix, ..QuantizeOptions::default() };
    quantize(&model, None, FileType::Q4_K_M, &out, &options, &mut |_| {}).unwrap();
    assert_eq!(Some(sha256(&out).as_str()), golden("random_llama.mxfp4"));
}

/// `ESPALIER_TEST_SMOLLM2` and `ESPALIER_TEST_QWEN2` name the models of which the golden lines were made.
#[test]
fn real_models_equal_llama_quantize() {
    for (variable, name) in [("ESPALIER_TEST_SMOLLM2", "smollm2"), ("ESPALIER_TEST_QWEN2", "qwen2")] {
        let Some(path) = std::env::var_os(variable) else { continue };
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&in_f32(&Model::open(Path::new(&path)).unwrap(), folder.path(), name), folder.path()) > 0);
    }
}
