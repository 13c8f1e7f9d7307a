//! GGUF files: what is written is read, and what is damaged is refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use espalier_kernels::BlockType;
use espalier_model::gguf::{Array, GgufFile, GgufWriter, Metadata, TensorHeader, Value};
use espalier_model::{Model, ModelError};
use proptest::prelude::*;

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets");

fn write(path: &Path, metadata: &Metadata, tensors: &[(TensorHeader, Vec<u8>)]) -> Result<(), ModelError> {
    let headers: Vec<TensorHeader> = tensors.iter().map(|(header, _)| header.clone()).collect();
    let mut writer = GgufWriter::create(path, metadata, &headers)?;
    for (_, data) in tensors {
        for piece in data.chunks(7) {
            writer.write_tensor_data(piece)?;
        }
    }
    writer.finish()
}

/// `stories260K` as GGUF, the way that every export writes it.
fn write_stories(path: &Path) {
    let source = Model::open(&Path::new(ASSETS).join("model/stories260K.bin")).unwrap();
    let headers: Vec<TensorHeader> = source
        .tensors()
        .map(|info| TensorHeader {
            name: info.name.clone(),
            dimensions: info.dimensions.clone(),
            block_type: info.block_type,
        })
        .collect();
    let mut writer = GgufWriter::create(path, source.metadata(), &headers).unwrap();
    for header in &headers {
        writer.write_tensor_data(source.tensor(&header.name).unwrap().raw().unwrap()).unwrap();
    }
    writer.finish().unwrap();
}

/// A small file with every kind of value.
fn small(path: &Path) {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "llama");
    metadata.insert("u8", 1_u8);
    metadata.insert("i16", -2_i16);
    metadata.insert("f64", 0.5_f64);
    metadata.insert("flag", true);
    metadata.insert("texts", vec!["a".to_owned(), String::new(), "\u{2581}b".to_owned()]);
    metadata.insert("numbers", vec![1_i64, -1]);
    let header = |name: &str, dimensions: &[usize], block_type| TensorHeader {
        name: name.to_owned(),
        dimensions: dimensions.to_vec(),
        block_type,
    };
    let tensors = [
        (header("a", &[3], BlockType::F32), vec![1; 12]),
        (header("b", &[32, 2], BlockType::Q8_0), vec![2; 68]),
        (header("c", &[5, 2, 2], BlockType::F16), vec![3; 40]),
    ];
    write(path, &metadata, &tensors).unwrap();
}

fn value() -> impl Strategy<Value = Value> {
    fn list<T: std::fmt::Debug + Clone + 'static>(
        item: impl Strategy<Value = T> + 'static,
    ) -> impl Strategy<Value = Vec<T>> {
        proptest::collection::vec(item, 0..6)
    }
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e30_f32..1e30).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,12}".prop_map(Value::String),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e300_f64..1e300).prop_map(Value::F64),
        list(any::<u8>()).prop_map(|v| Value::Array(Array::U8(v))),
        list(any::<i8>()).prop_map(|v| Value::Array(Array::I8(v))),
        list(any::<u16>()).prop_map(|v| Value::Array(Array::U16(v))),
        list(any::<i16>()).prop_map(|v| Value::Array(Array::I16(v))),
        list(any::<u32>()).prop_map(|v| Value::Array(Array::U32(v))),
        list(any::<i32>()).prop_map(|v| Value::Array(Array::I32(v))),
        list(-1e30_f32..1e30).prop_map(|v| Value::Array(Array::F32(v))),
        list(any::<bool>()).prop_map(|v| Value::Array(Array::Bool(v))),
        list(".{0,5}").prop_map(|v| Value::Array(Array::String(v))),
        list(any::<u64>()).prop_map(|v| Value::Array(Array::U64(v))),
        list(any::<i64>()).prop_map(|v| Value::Array(Array::I64(v))),
        list(-1e300_f64..1e300).prop_map(|v| Value::Array(Array::F64(v))),
    ]
}

type Tensors = Vec<(TensorHeader, Vec<u8>)>;

fn tensors() -> impl Strategy<Value = Tensors> {
    let types = prop_oneof![
        Just(BlockType::F32),
        Just(BlockType::F16),
        Just(BlockType::Bf16),
        Just(BlockType::Q4_0),
        Just(BlockType::Q6K),
    ];
    let one = (types, proptest::collection::vec(1_usize..4, 1..=4), any::<u8>());
    proptest::collection::vec(one, 0..5).prop_map(|list| {
        let build = |(at, (block_type, mut dimensions, seed)): (usize, (BlockType, Vec<usize>, u8))| {
            dimensions[0] *= block_type.block_size();
            let rows: usize = dimensions[1..].iter().product();
            let length = block_type.row_bytes(dimensions[0]).unwrap() * rows;
            let data = (0..length).map(|byte| seed.wrapping_add(byte as u8)).collect();
            (TensorHeader { name: format!("tensor.{at}"), dimensions, block_type }, data)
        };
        list.into_iter().enumerate().map(build).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::btree_map("[a-z.]{1,20}", value(), 0..12),
        tensors in tensors(),
        alignment in prop_oneof![Just(None), (0_u32..9).prop_map(|power| Some(1 << power))],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", "llama");
        metadata.extend(entries);
        if let Some(alignment) = alignment {
            metadata.insert("general.alignment", alignment);
        }
        write(&path, &metadata, &tensors).unwrap();
        let file = GgufFile::open(&path).unwrap();
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (entry, (header, data)) in file.tensors().iter().zip(&tensors) {
            prop_assert_eq!(&entry.name, &header.name);
            prop_assert_eq!(&entry.dimensions, &header.dimensions);
            prop_assert_eq!(file.data(entry), &data[..]);
            prop_assert_eq!(entry.bytes.start % file.alignment(), 0);
        }
        prop_assert!(!folder.path().join("x.gguf.part").exists());
    }

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        small(&path);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = GgufFile::open(&path) {
            for entry in file.tensors() {
                prop_assert!(entry.bytes.end <= bytes.len());
            }
        }
        let _ = Model::open(&path);
    }

    #[test]
    fn random_bytes_never_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..200), counts in any::<[u8; 2]>(), magic in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let mut bytes = Vec::new();
        if magic {
            bytes.extend_from_slice(b"GGUF\x03\0\0\0");
            bytes.extend_from_slice(&u64::from(counts[0]).to_le_bytes());
            bytes.extend_from_slice(&u64::from(counts[1] % 4).to_le_bytes());
        }
        bytes.extend(tail);
        fs::write(&path, &bytes).unwrap();
        let _ = GgufFile::open(&path);
        let _ = Model::open(&path);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A real model with damage in its head opens with finite sizes and readable rows, or not at all.
    #[test]
    fn a_changed_model_never_panics(changes in proptest::collection::vec((0_usize..16_000, any::<u8>()), 1..4)) {
        static STORIES: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("stories.gguf");
            write_stories(&path);
            fs::read(&path).unwrap()
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let mut bytes = STORIES.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(model) = Model::open(&path) {
            for info in model.tensors() {
                model.tensor(&info.name).unwrap().to_vec().unwrap();
            }
        }
    }
}

/// Every byte in turn takes values that counts, lengths and types react to.
#[test]
fn each_changed_byte_of_a_small_file_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    small(&path);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        for value in [0, 1, 9, 0x7F, 0x80, 0xFF] {
            let mut changed = bytes.clone();
            changed[at] = value;
            fs::write(&path, &changed).unwrap();
            let _ = GgufFile::open(&path);
        }
    }
}

#[test]
fn a_file_that_ends_early_is_refused_with_its_name_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stories.gguf");
    write_stories(&path);
    let bytes = fs::read(&path).unwrap();
    assert!(Model::open(&path).is_ok());
    for part in 0..50 {
        fs::write(&path, &bytes[..bytes.len() * part / 50]).unwrap();
        let message = Model::open(&path).err().unwrap().to_string();
        for expected in ["stories.gguf", "byte ", "expected", ";"] {
            assert!(message.contains(expected), "{part}/50: {message}");
        }
        assert_eq!(message.matches("stories.gguf").count(), 1, "{message}");
        if part > 0 {
            assert!(message.contains("download"), "{part}/50: {message}");
        }
    }
}

/// Builds heads by hand, so that each rule is broken alone.
struct Head(Vec<u8>);

impl Head {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        let mut head = Self(b"GGUF".to_vec());
        head.0.extend(version.to_le_bytes());
        head.u64(tensors).u64(keys)
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn text(mut self, text: &str) -> Self {
        self = self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }
    fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let mut head = self.text(name).u32(dimensions.len() as u32);
        for &dimension in dimensions {
            head = head.u64(dimension);
        }
        head.u32(kind).u64(offset)
    }
    fn error(mut self) -> String {
        self.0.resize(self.0.len() + 300, 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        fs::write(&path, self.0).unwrap();
        GgufFile::open(&path).err().map_or("no error".to_owned(), |error| error.to_string())
    }
}

#[test]
fn each_broken_rule_has_its_message() {
    let long = "n".repeat(64);
    let cases = [
        (Head::new(1, 0, 0), "version 1"),
        (Head::new(3_u32.swap_bytes(), 0, 0), "big endian"),
        (Head::new(3, u64::MAX, 0), "below 2^63"),
        (Head::new(3, 1 << 40, 0), "at most"),
        (Head::new(3, 0, 1 << 40), "at most"),
        (Head::new(3, 0, 1).text("k").u32(13), "value type"),
        (Head::new(3, 0, 1).text("k").u32(8).u64(1 << 50), "at most"),
        (Head::new(3, 0, 1).text("k").u32(9).u32(10).u64(1 << 61), "at most"),
        (Head::new(3, 0, 1).text("k").u32(9).u32(9).u64(1), "array of arrays"),
        (Head::new(3, 0, 1).text("").u32(4).u32(1), "empty name"),
        (Head::new(3, 0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1), "second time"),
        (Head::new(3, 0, 1).text("general.alignment").u32(4).u32(48), "power of two"),
        (Head::new(3, 0, 1).text("general.alignment").u32(4).u32(0), "power of two"),
        (Head::new(3, 1, 0).tensor("t", &[1, 1, 1, 1, 1], 0, 0), "at most 4 dimensions"),
        (Head::new(3, 1, 0).tensor(&long, &[1], 0, 0), "63 bytes"),
        (Head::new(3, 1, 0).tensor("t", &[1], 23, 0), "IQ4_XS"),
        (Head::new(3, 1, 0).tensor("t", &[0], 0, 0), "above zero"),
        (Head::new(3, 1, 0).tensor("t", &[33], 8, 0), "whole Q8_0 blocks"),
        (Head::new(3, 1, 0).tensor("t", &[1 << 40, 1 << 40], 0, 0), "above zero"),
        (Head::new(3, 1, 0).tensor("t", &[1 << 20], 0, 0), "beyond the end"),
        (Head::new(3, 1, 0).tensor("t", &[1], 0, 32), "offset 0"),
        (Head::new(3, 2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32), "second time"),
        (Head::new(3, 2, 0).tensor("t", &[9], 0, 0).tensor("u", &[1], 0, 32), "offset 64"),
    ];
    for (head, expected) in cases {
        let message = head.error();
        assert!(message.contains(expected), "expected {expected:?} in: {message}");
        assert!(message.contains("x.gguf"), "{message}");
    }
    assert_eq!(Head::new(2, 1, 0).tensor("t", &[2, 2], 0, 0).error(), "no error");
}

#[test]
fn the_writer_refuses_misuse_and_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, "old").unwrap();
    let header = |name: &str| TensorHeader { name: name.to_owned(), dimensions: vec![2], block_type: BlockType::F32 };
    let metadata = Metadata::new();
    let mut writer = GgufWriter::create(&path, &metadata, &[header("a")]).unwrap();
    assert!(folder.path().join("x.gguf.part").exists());
    assert!(writer.write_tensor_data(&[0; 9]).unwrap_err().to_string().contains("lacks 8"));
    writer.write_tensor_data(&[0; 4]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("4 of its 8 bytes"));
    assert!(!folder.path().join("x.gguf.part").exists());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert!(GgufWriter::create(&path, &metadata, &[header("a"), header("a")]).is_err());
    assert!(GgufWriter::create(&path, &metadata, &[header("")]).is_err());
}

#[test]
fn the_architecture_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let mut metadata = Metadata::new();
    metadata.insert("other", 1_u32);
    metadata.insert("general.architecture", "llama");
    write(&path, &metadata, &[]).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let keys: Vec<&str> = file.metadata().iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["general.architecture", "other"]);
}

#[test]
fn vocabulary_files_are_read_and_refused_as_models() {
    for name in ["gpt-2", "llama-spm", "qwen2", "starcoder"] {
        let path = Path::new(ASSETS).join(format!("vocab/ggml-vocab-{name}.gguf"));
        let file = GgufFile::open(&path).unwrap();
        assert!(file.metadata().require_strings("tokenizer.ggml.tokens").unwrap().len() > 30_000);
        assert!(Model::open(&path).is_err());
    }
}
