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

use espalier_model::Model;
use espalier_quantize::{FileType, ImportanceSource, QuantizeOptions, quantize};
use sha2::{Digest, Sha256};

/// Lines `SHA256  MODEL.TYPE` and `SHA256  MODEL.imatrix.TYPE`; the F32 file is where the others come from.
const GOLDEN: &str = include_str!("golden/files.sha256");

fn golden(name: &str) -> &'static str {
    let line = GOLDEN.lines().find(|line| line.ends_with(&format!("  {name}")));
    line.unwrap_or_else(|| panic!("no line for {name}")).split_whitespace().next().unwrap()
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

/// Every mix of the F32 file `path`, whose name is that of the golden lines.
fn check(path: &Path, folder: &Path) {
    let name = path.file_stem().unwrap().to_str().unwrap();
    assert_eq!(sha256(path), golden(&format!("{name}.F32")), "another model than the golden files were made from");
    let model = Model::open(path).unwrap();
    let matrix = importance::by_formula(&model);
    let out = folder.join("out.gguf");
    let mut different = Vec::new();
    for file_type in FileType::ALL {
        for weighed in [false, true] {
            let file = if weighed { format!("{name}.imatrix.{file_type}") } else { format!("{name}.{file_type}") };
            // Without importance llama-quantize refuses this mix, and so do we; F32 is the source.
            if file_type == FileType::F32 || (file_type == FileType::Q2_K_S && !weighed && !GOLDEN.contains(&file)) {
                continue;
            }
            let source = ImportanceSource { matrix: matrix.clone(), file: format!("{name}.imatrix.gguf") };
            let importance = weighed.then_some(source);
            let options = QuantizeOptions { importance, verify: false, ..QuantizeOptions::default() };
            quantize(&model, None, file_type, &out, &options, &mut |_| {}).unwrap();
            if sha256(&out) != golden(&file) {
                different.push(file);
            }
        }
    }
    assert!(different.is_empty(), "other bytes than llama-quantize's: {different:?}");
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
    check(&in_f32(&stories(), folder.path(), "stories260K"), folder.path());
}

#[test]
fn a_model_with_widths_of_256_equals_llama_quantize() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random_llama.gguf");
    random_llama::write(&stories(), &path).unwrap();
    check(&path, folder.path());
}

/// `ESPALIER_TEST_SMOLLM2` and `ESPALIER_TEST_QWEN2` name the models of which the golden lines were made.
#[test]
fn real_models_equal_llama_quantize() {
    for (variable, name) in [("ESPALIER_TEST_SMOLLM2", "smollm2"), ("ESPALIER_TEST_QWEN2", "qwen2")] {
        let Some(path) = std::env::var_os(variable) else { continue };
        let folder = tempfile::tempdir().unwrap();
        check(&in_f32(&Model::open(Path::new(&path)).unwrap(), folder.path(), name), folder.path());
    }
}
