//! Quantized files against those of llama-quantize: type and SHA-256 of every tensor, from the same F32 file.
//!
//! `tests/golden/*.json` were made by `scripts/quantize-parity.sh --golden`.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

#[path = "support/random_llama.rs"]
mod random_llama;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use espalier_model::Model;
use espalier_quantize::{FileType, QuantizeOptions, quantize};
use sha2::{Digest, Sha256};

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

/// Lines as the example `tensor_hashes` prints them.
fn hashes(path: &Path) -> String {
    let model = Model::open(path).unwrap();
    let mut lines = String::new();
    for info in model.tensors() {
        let tensor = model.tensor(&info.name).unwrap();
        let mut hash = String::new();
        for byte in Sha256::digest(tensor.raw().unwrap()) {
            write!(hash, "{byte:02x}").unwrap();
        }
        writeln!(lines, "{} {} {hash}", info.name, info.block_type.name()).unwrap();
    }
    lines
}

/// What `scripts/quantize-parity.sh --golden` writes.
#[derive(serde::Deserialize)]
struct Golden {
    /// How the files were made.
    command: String,
    /// For each type the lines of its file.
    files: BTreeMap<String, Vec<String>>,
}

fn check(model: &Model, golden: &str, folder: &Path) {
    let golden: Golden = serde_json::from_str(golden).unwrap();
    assert_eq!(golden.files.len(), FileType::ALL.len() - 1, "one file a type but F32: {}", golden.command);
    for (name, expected) in golden.files {
        let file_type: FileType = name.parse().unwrap();
        let out = folder.join(format!("{file_type}.gguf"));
        quantize(model, None, file_type, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap();
        let lines = hashes(&out);
        for (line, expected) in lines.lines().zip(&expected) {
            assert_eq!(line, expected, "{file_type}");
        }
        assert_eq!(lines.lines().count(), expected.len(), "{file_type}");
    }
}

#[test]
fn the_260k_model_equals_llama_quantize() {
    let folder = tempfile::tempdir().unwrap();
    check(&stories(), include_str!("golden/stories260K.json"), folder.path());
}

#[test]
fn a_model_with_widths_of_256_equals_llama_quantize() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    random_llama::write(&stories(), &path).unwrap();
    check(&Model::open(&path).unwrap(), include_str!("golden/random_llama.json"), folder.path());
}
