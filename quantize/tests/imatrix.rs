//! Importance matrices: files of either form, and hostile ones.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::Model;
use espalier_quantize::{CHUNK_TOKENS, Importance, ImportanceMatrix, MeasuredText, QuantizeError, importance};
use proptest::prelude::*;

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn small() -> ImportanceMatrix {
    let mut matrix = ImportanceMatrix::new(vec!["a.txt".into(), "b.txt".into()], 3, CHUNK_TOKENS);
    matrix.insert("blk.0.ffn_up.weight", Importance::new(vec![1.5, 0.0, 7.25], vec![1536]).unwrap());
    matrix.insert("blk.0.ffn_up_exps.weight", Importance::new(vec![1.0, 2.0, 0.0, 0.0], vec![900, 0]).unwrap());
    matrix
}

#[test]
fn both_forms_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imatrix.gguf");
    small().write(&path).unwrap();
    assert_eq!(ImportanceMatrix::read(&path).unwrap(), small());

    let legacy = ImportanceMatrix::read(&written(folder.path(), "imatrix.dat", &small().to_legacy())).unwrap();
    assert_eq!((legacy.chunks(), legacy.chunk_tokens(), legacy.datasets()), (3, 512, ["b.txt".to_owned()].as_slice()));
    for (name, importance) in small().iter() {
        // The form keeps mean times chunks, which rounds.
        for (kept, mean) in legacy.get(name).unwrap().means().iter().zip(importance.means()) {
            assert!((kept - mean).abs() <= mean * 1e-6, "{name}: {kept} for {mean}");
        }
    }
}

fn golden(form: &str) -> ImportanceMatrix {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/stories260K.imatrix.");
    ImportanceMatrix::read(Path::new(&format!("{folder}{form}"))).unwrap()
}

fn engine(max_batch_tokens: usize) -> NativeEngine {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin");
    let options = EngineOptions { precision: Precision::F32, max_batch_tokens, ..EngineOptions::default() };
    NativeEngine::load(&Model::open(Path::new(path)).unwrap(), None, &options).unwrap()
}

fn wiki(engine: &NativeEngine, count: usize) -> Vec<MeasuredText> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/text/wiki.test.raw");
    let mut windows = MeasuredText::windows(engine, &std::fs::read_to_string(path).unwrap(), CHUNK_TOKENS as usize);
    windows.truncate(count);
    windows
}

fn measure(engine: &NativeEngine, texts: &[MeasuredText]) -> ImportanceMatrix {
    let names = vec!["wiki.test.raw".to_owned()];
    importance(engine, texts, names, false, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn the_two_forms_of_llama_imatrix_hold_the_same_means() {
    let (gguf, legacy) = (golden("gguf"), golden("dat"));
    assert_eq!(gguf.datasets(), ["wiki.test.raw"]);
    assert_eq!((gguf.chunks(), gguf.chunk_tokens(), gguf.len()), (4, 512, 35));
    assert_eq!((legacy.chunks(), legacy.datasets(), legacy.len()), (4, gguf.datasets(), 35));
    for (name, importance) in gguf.iter() {
        for (mean, kept) in importance.means().iter().zip(legacy.get(name).unwrap().means()) {
            assert!((mean - kept).abs() <= mean * 1e-6, "{name}");
        }
    }
}

#[test]
fn our_own_sums_are_those_of_llama_imatrix_to_the_rounding_of_its_sums() {
    let engine = engine(512);
    let (ours, theirs) = (measure(&engine, &wiki(&engine, 4)), golden("gguf"));
    assert_eq!((ours.datasets(), ours.chunks(), ours.len()), (theirs.datasets(), theirs.chunks(), theirs.len()));
    for (name, importance) in ours.iter() {
        let expected = theirs.get(name).unwrap();
        assert_eq!(importance.counts(), expected.counts(), "{name}");
        for (sum, expected) in importance.sums().iter().zip(expected.sums()) {
            assert!((sum - expected).abs() <= expected * 2e-5, "{name}: {sum} for {expected}");
        }
    }
}

#[test]
fn sums_depend_neither_on_the_rows_of_a_pass_nor_on_threads() {
    let whole = engine(512);
    let texts = wiki(&whole, 1);
    let expected = measure(&whole, &texts);
    assert_eq!(measure(&engine(37), &texts), expected);
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(single.install(|| measure(&whole, &texts)), expected);
}

#[test]
fn the_head_is_measured_when_asked_and_an_interruption_ends_it() {
    let engine = engine(512);
    let texts = [MeasuredText::whole(vec![1, 5, 9]), MeasuredText::whole(vec![1, 7])];
    let head = importance(&engine, &texts, Vec::new(), true, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(head.get("output.weight").unwrap().counts(), [5]);
    let stopped = importance(&engine, &texts, Vec::new(), true, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(QuantizeError::Interrupted)));
    let nothing = importance(&engine, &[], Vec::new(), true, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(nothing, Err(QuantizeError::NothingToMeasure { texts: 0 })));
}

#[test]
fn what_is_no_importance_matrix_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    // One entry "x" of one chunk with one value, and the same again.
    let entry = [&[1, 0, 0, 0][..], b"x", &[1, 0, 0, 0, 1, 0, 0, 0], &1_f32.to_le_bytes()].concat();
    let twice = [&[2, 0, 0, 0][..], &entry, &entry].concat();
    let negative = [&[1, 0, 0, 0][..], &entry[..13], &(-1_f32).to_le_bytes()].concat();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("short", vec![1, 0]),
        ("none", 0_i32.to_le_bytes().to_vec()),
        ("below", (-1_i32).to_le_bytes().to_vec()),
        ("many", [i32::MAX.to_le_bytes(), 1_i32.to_le_bytes()].concat()),
        ("text", b"Once upon a time there was a matrix.".to_vec()),
        ("twice", twice),
        ("negative", negative),
    ] {
        let error = ImportanceMatrix::read(&written(folder.path(), name, &bytes)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("pipeline imatrix"), "{name}: {error}");
    }
    let error = ImportanceMatrix::read(&folder.path().join("missing")).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_matrix_comes_back(entries in prop::collection::btree_map(
        "[a-z0-9._]{1,40}",
        (1_usize..4, 1_usize..40).prop_flat_map(|(matrices, columns)| (
            prop::collection::vec(0.0_f32..1e6, matrices * columns),
            prop::collection::vec(0_u64..1 << 20, matrices),
        )),
        1..6,
    )) {
        let folder = tempfile::tempdir().unwrap();
        let mut matrix = ImportanceMatrix::new(vec!["rows".into()], 7, 512);
        for (name, (sums, counts)) in entries {
            matrix.insert(name, Importance::new(sums, counts).unwrap());
        }
        let path = folder.path().join("imatrix.gguf");
        matrix.write(&path).unwrap();
        prop_assert_eq!(ImportanceMatrix::read(&path).unwrap(), matrix);
    }

    #[test]
    fn spoiled_bytes_are_read_or_refused(gguf in any::<bool>(), cut in 0.0_f64..1.0, spoiled in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imatrix.gguf");
        small().write(&path).unwrap();
        let mut bytes = if gguf { std::fs::read(&path).unwrap() } else { small().to_legacy() };
        for (place, value) in spoiled {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate((bytes.len() as f64 * (1.0 - cut * cut)) as usize);
        if let Ok(read) = ImportanceMatrix::read(&written(folder.path(), "spoiled", &bytes)) {
            for (_, importance) in read.iter() {
                prop_assert!(importance.means().iter().all(|mean| *mean >= 0.0));
            }
        }
    }
}
