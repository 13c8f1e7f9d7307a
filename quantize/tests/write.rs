//! Whole files: what is written, what is reported, what is refused.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

#[path = "support/importance.rs"]
mod importance;
#[path = "support/random_llama.rs"]
mod random_llama;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use espalier_kernels::BlockType;
use espalier_model::gguf::{GgufWriter, TensorHeader};
use espalier_model::{LoraAdapter, LoraModule, Model};
use espalier_quantize::{
    FileType, Importance, ImportanceMatrix, ImportanceSource, Origin, Provenance, QuantizeError, QuantizeEvent,
    QuantizeOptions, QuantizeReport, quantize, verify,
};
use tempfile::TempDir;

fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

/// The random llama in a folder of its own.
fn random() -> (TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    random_llama::write(&stories(), &path).unwrap();
    let model = Model::open(&path).unwrap();
    (folder, model)
}

fn plainly(model: &Model, adapter: Option<&LoraAdapter>, file_type: FileType, out: &Path) -> QuantizeReport {
    quantize(model, adapter, file_type, out, &QuantizeOptions::default(), &mut |_| {}).unwrap()
}

fn adapter(inputs: usize, outputs: usize) -> LoraAdapter {
    let rank = 8;
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin() * 0.1).collect::<Vec<_>>();
    let (a, b) = (wave(rank * inputs, 0.37), wave(outputs * rank, 1.1));
    let module = LoraModule { a, b, inputs, outputs, rank, alpha: 16.0, magnitude: None };
    LoraAdapter {
        rslora: false,
        base_model: "random".to_owned(),
        base_sha256: None,
        chat_template: None,
        modules: BTreeMap::from([("blk.1.attn_v".to_owned(), module)]),
    }
}

#[test]
fn an_adapter_is_folded_in() {
    let (folder, model) = random();
    let adapter = adapter(256, 128);
    let out = folder.path().join("merged.gguf");
    let report = plainly(&model, Some(&adapter), FileType::F32, &out);
    let merged: Vec<_> = report.tensors.iter().filter(|tensor| tensor.merged).map(|tensor| &tensor.name).collect();
    assert_eq!(merged, ["blk.1.attn_v.weight"]);

    let before = model.tensor("blk.1.attn_v.weight").unwrap().to_vec().unwrap();
    let after = Model::open(&out).unwrap().tensor("blk.1.attn_v.weight").unwrap().to_vec().unwrap();
    let pair = &adapter.modules["blk.1.attn_v"];
    for output in 0..128 {
        for input in 0..256 {
            let product: f64 =
                (0..8).map(|r| f64::from(pair.b[output * 8 + r]) * f64::from(pair.a[r * 256 + input])).sum();
            let expected = f64::from(before[output * 256 + input]) + f64::from(adapter.scale(pair)) * product;
            assert!((f64::from(after[output * 256 + input]) - expected).abs() < 1e-6);
        }
    }
    // The same adapter goes into a quantized file, which the check then compares with the merged rows.
    plainly(&model, Some(&adapter), FileType::Q4_K_M, &folder.path().join("merged.Q4_K_M.gguf"));
}

fn weighed_by(matrix: ImportanceMatrix) -> QuantizeOptions {
    let importance = Some(ImportanceSource { matrix, file: "rows.imatrix.gguf".to_owned() });
    QuantizeOptions { importance, ..QuantizeOptions::default() }
}

#[test]
fn importance_weighs_the_merged_rows_and_is_named_in_the_file() {
    let (folder, model) = random();
    let out = folder.path().join("weighed.gguf");
    let options = weighed_by(importance::by_formula(&model));
    // The file is compared with its source at the end, as always.
    let report = quantize(&model, Some(&adapter(256, 128)), FileType::Q4_K_M, &out, &options, &mut |_| {}).unwrap();
    let weighed = report.tensors.iter().filter(|tensor| tensor.weighed).count();
    assert_eq!(weighed, 4 * 7 + 1, "every matrix but the embedding, which was not measured");
    let written = Model::open(&out).unwrap();
    assert_eq!(written.metadata().get_str("quantize.imatrix.file").unwrap(), Some("rows.imatrix.gguf"));
    assert_eq!(written.metadata().get_str("quantize.imatrix.dataset").unwrap(), Some("formula.txt"));
    assert_eq!(written.metadata().get_u32("quantize.imatrix.entries_count").unwrap(), Some(29));
    assert_eq!(written.metadata().get_u32("quantize.imatrix.chunks_count").unwrap(), Some(25));
    // Types that leave no choice are not weighed, and say so.
    let report = quantize(&model, None, FileType::Q8_0, &out, &options, &mut |_| {}).unwrap();
    assert!(report.tensors.iter().all(|tensor| !tensor.weighed));
}

#[test]
fn importance_of_another_model_is_refused_before_anything_is_written() {
    let (folder, model) = random();
    let out = folder.path().join("x.gguf");
    let refused = |change: &dyn Fn(&mut ImportanceMatrix)| {
        let mut matrix = ImportanceMatrix::new(Vec::new(), 1, 512);
        for (name, importance) in
            importance::by_formula(&model).iter().filter(|(name, _)| !name.contains("blk.3.ffn_up"))
        {
            matrix.insert(name, importance.clone());
        }
        change(&mut matrix);
        let error = quantize(&model, None, FileType::Q4_K_M, &out, &weighed_by(matrix), &mut |_| {}).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    let missing = refused(&|_| {});
    assert!(missing.contains("no entry for tensor \"blk.3.ffn_up.weight\""), "{missing}");
    let shorter = refused(&|matrix| {
        matrix.insert("blk.3.ffn_up.weight", Importance::new(vec![1.0; 128], vec![1]).unwrap());
    });
    assert!(shorter.contains("128 values") && shorter.contains("blk.3.ffn_up.weight"), "{shorter}");
    let options = QuantizeOptions::default();
    let none = quantize(&model, None, FileType::Q2_K_S, &out, &options, &mut |_| {}).unwrap_err().to_string();
    assert!(none.contains("Q2_K_S takes an importance matrix") && none.contains("blk.0.attn_k.weight"), "{none}");
}

#[test]
fn a_foreign_adapter_is_refused_before_anything_is_written() {
    let (folder, model) = random();
    let out = folder.path().join("x.gguf");
    let options = QuantizeOptions::default();
    let error = quantize(&model, Some(&adapter(64, 128)), FileType::Q8_0, &out, &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::Adapter { .. }), "{error}");
    assert!(!out.exists());
}

#[test]
fn quantizing_twice_copies_and_equal_inputs_give_equal_files() {
    let (folder, model) = random();
    let path = |name: &str| folder.path().join(name);
    plainly(&model, None, FileType::Q4_K_M, &path("once.gguf"));
    plainly(&model, None, FileType::Q4_K_M, &path("again.gguf"));
    assert!(fs::read(path("once.gguf")).unwrap() == fs::read(path("again.gguf")).unwrap());
    let report = plainly(&Model::open(&path("once.gguf")).unwrap(), None, FileType::Q4_K_M, &path("twice.gguf"));
    assert!(fs::read(path("once.gguf")).unwrap() == fs::read(path("twice.gguf")).unwrap());
    assert_eq!(report.parameters_requantized(), 0);
    let report = plainly(&Model::open(&path("once.gguf")).unwrap(), None, FileType::Q4_0, &path("other.gguf"));
    assert!(report.parameters_requantized() > report.parameters() / 2);
    let report = plainly(&Model::open(&path("once.gguf")).unwrap(), None, FileType::F32, &path("exact.gguf"));
    assert_eq!(report.parameters_requantized(), 0);
}

#[test]
fn the_report_says_how_much_fell_back_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let report = plainly(&stories(), None, FileType::Q4_K_M, &folder.path().join("small.gguf"));
    let notes = report.notes().join("\n");
    assert!(notes.contains("rows of 64 are not a multiple of 256"), "{notes}");
    assert!(notes.contains("F16 in place of"), "{notes}");
    assert!(report.parameters_fallen_back() * 10 > report.parameters() * 9);
    assert_eq!(report.parameters(), 260_032, "the weights of the 260K model");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["file_type"], "Q4_K_M");
}

#[test]
fn progress_ends_at_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let (mut planned, mut last, mut tensors) = (0, 0, 0);
    let out = folder.path().join("small.gguf");
    quantize(&stories(), None, FileType::Q8_0, &out, &QuantizeOptions::default(), &mut |event| match event {
        QuantizeEvent::Planned { bytes, .. } => planned = bytes,
        QuantizeEvent::Progress { bytes, .. } => last = bytes,
        QuantizeEvent::Tensor { index, .. } => tensors = index + 1,
        QuantizeEvent::Verifying => assert_eq!(last, planned),
    })
    .unwrap();
    assert_eq!((last, tensors), (planned, 48 - 1));
}

#[test]
fn where_the_weights_come_from_stands_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let origin = |name: &str| Some(Origin { name: name.to_owned(), sha256: "ab".repeat(32) });
    let options = QuantizeOptions {
        provenance: Provenance {
            base_model: origin("stories"),
            adapter: origin("adapter"),
            rows: origin("rows.parquet"),
            recipe: Some("Q8_0".to_owned()),
        },
        ..QuantizeOptions::default()
    };
    let out = folder.path().join("small.gguf");
    quantize(&stories(), None, FileType::Q8_0, &out, &options, &mut |_| {}).unwrap();
    let written = Model::open(&out).unwrap();
    let text = |key: &str| written.metadata().get_str(key).unwrap().map(str::to_owned);
    assert_eq!(text("general.base_model.0.name").as_deref(), Some("stories"));
    assert_eq!(text("general.dataset.0.name").as_deref(), Some("rows.parquet"));
    assert_eq!(text("espalier.adapter.sha256"), Some("ab".repeat(32)));
}

#[test]
fn a_weight_that_is_no_number_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (_keep, model) = random();
    let source = folder.path().join("broken.gguf");
    let headers: Vec<TensorHeader> = model
        .tensors()
        .map(|info| TensorHeader {
            name: info.name.clone(),
            dimensions: info.dimensions.clone(),
            block_type: BlockType::F32,
        })
        .collect();
    let mut writer = GgufWriter::create(&source, model.metadata(), &headers).unwrap();
    for header in &headers {
        let mut bytes = model.tensor(&header.name).unwrap().raw().unwrap().to_vec();
        if header.name == "blk.2.ffn_gate.weight" {
            bytes[(5 * 256 + 7) * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        writer.write_tensor_data(&bytes).unwrap();
    }
    writer.finish().unwrap();

    let broken = Model::open(&source).unwrap();
    let target = tempfile::tempdir().unwrap();
    let out = target.path().join("x.gguf");
    let error = quantize(&broken, None, FileType::Q4_K_M, &out, &QuantizeOptions::default(), &mut |_| {}).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("\"blk.2.ffn_gate.weight\", row 5: element 7 is NaN"), "{message}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "no file is left behind");
}

#[test]
fn a_changed_file_fails_its_check() {
    let (folder, model) = random();
    let out = folder.path().join("small.gguf");
    let report = plainly(&model, None, FileType::Q4_0, &out);
    let bytes = fs::read(&out).unwrap();
    let spoil = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        fs::write(&out, bytes).unwrap();
        verify(&model, None, &report, &[]).unwrap_err().to_string()
    };
    // The last bytes are the nibbles of the last row, which is always sampled.
    let message = spoil(&|bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0xFF;
        bytes[last - 1] ^= 0xFF;
    });
    assert!(message.contains("row"), "{message}");
    let message = spoil(&|bytes| {
        let key = bytes.windows(12).position(|window| window == b"general.name").unwrap();
        bytes[key + 12 + 4 + 8] ^= 1;
    });
    assert!(message.contains("general.name"), "{message}");
    spoil(&|bytes| bytes.truncate(bytes.len() / 2));
}
