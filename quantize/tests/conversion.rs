//! Hugging Face folders as GGUF files, beside those of llama.cpp's converter: every tensor and every key.
//!
//! `tests/assets/architectures/*.gguf` were made by `scripts/golden-architectures.py OUT --llama-cpp FOLDER`, which calls
//! `convert_hf_to_gguf.py --outtype bf16`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::Path;

use espalier_model::Model;
use espalier_quantize::{FileType, QuantizeOptions, quantize};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/architectures");

/// Keys with which the two differ, all without a meaning of their own: the name is the folder's, with capitals there; sizes of
/// heads follow from other keys where one of the two leaves them out.
const NAME: &str = "general.name";
const DERIVED: [&str; 5] = [
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "vocab_size",
    "attention.sliding_window_pattern",
];
/// What only we write: false is llama.cpp's default too.
const OURS: &str = "tokenizer.ggml.add_bos_token";

#[test]
fn folders_become_the_files_of_the_reference_converter() {
    let out = tempfile::tempdir().unwrap();
    for name in ["llama", "qwen2", "qwen3", "gemma3", "granite", "smollm3"] {
        let folder = Model::open(&Path::new(ASSETS).join(name)).unwrap();
        let path = out.path().join(format!("{name}.gguf"));
        quantize(&folder, None, FileType::Bf16, &path, &QuantizeOptions::default(), &mut |_| {}).unwrap();
        let (ours, theirs) =
            (Model::open(&path).unwrap(), Model::open(&Path::new(ASSETS).join(format!("{name}.gguf"))).unwrap());

        assert_eq!(ours.tensors().count(), theirs.tensors().count(), "{name}");
        for info in theirs.tensors() {
            let (a, b) = (ours.tensor(&info.name).unwrap(), theirs.tensor(&info.name).unwrap());
            assert_eq!(
                (a.info().block_type, &a.info().dimensions),
                (info.block_type, &info.dimensions),
                "{}",
                info.name
            );
            assert!(a.raw().unwrap() == b.raw().unwrap(), "{name}: {} has other bytes", info.name);
        }
        let mut config = theirs.config().clone();
        config.name.clone_from(&ours.config().name);
        assert_eq!(&config, ours.config());

        let derived = |key: &str| DERIVED.iter().any(|end| key.ends_with(end));
        for (key, value) in theirs.metadata().iter().filter(|(key, _)| *key != NAME && !derived(key)) {
            assert_eq!(Some(value), ours.metadata().get(key), "{name}: {key}");
        }
        let more = ours.metadata().iter().map(|(key, _)| key).filter(|key| !theirs.metadata().contains(key));
        let more: Vec<&str> = more.filter(|key| !derived(key) && *key != OURS).collect();
        assert!(more.is_empty(), "{name}: {more:?}");
    }
}
