//! The GGUF form: `NAME.in_sum2` and `NAME.counts` for each tensor, the texts in the metadata.

use std::collections::BTreeMap;
use std::path::Path;

use espalier_kernels::BlockType;
use espalier_model::ModelError;
use espalier_model::gguf::{Array, GgufFile, GgufWriter, Metadata, TensorEntry, TensorHeader, Value};

use super::{Importance, ImportanceMatrix, legacy};
use crate::QuantizeError;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";

/// Counts from here on are not exact in the format, nor possible.
const MOST_ROWS: f32 = 9.0e15;

pub(super) fn read(path: &Path) -> Result<ImportanceMatrix, QuantizeError> {
    let mut magic = [0; 4];
    let opened = std::fs::File::open(path).and_then(|mut file| {
        // A file of less than four bytes is read as the other form, which says what it lacks.
        match std::io::Read::read_exact(&mut file, &mut magic) {
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(()),
        }
    });
    opened.map_err(|source| ModelError::File { path: path.to_owned(), action: "read it", source })?;
    let problem = |problem| QuantizeError::ImportanceFile { path: path.to_owned(), problem };
    if magic == *b"GGUF" {
        return from_gguf(&GgufFile::open(path)?).map_err(problem);
    }
    let bytes =
        std::fs::read(path).map_err(|source| ModelError::File { path: path.to_owned(), action: "read it", source })?;
    legacy::decode(&bytes).map_err(problem)
}

fn from_gguf(file: &GgufFile) -> Result<ImportanceMatrix, String> {
    let metadata = file.metadata();
    let words = |error: ModelError| error.to_string();
    match metadata.get_str("general.type").map_err(words)? {
        Some("imatrix") | None => {}
        Some(other) => return Err(format!("it is a GGUF file of type {other:?}")),
    }
    let missing = |key: &str| format!("the metadata has no key {key}");
    let datasets = metadata.get_strings(DATASETS).map_err(words)?.ok_or_else(|| missing(DATASETS))?;
    let chunks = metadata.get_u32(CHUNK_COUNT).map_err(words)?.ok_or_else(|| missing(CHUNK_COUNT))?;
    let chunk_tokens = metadata.get_u32(CHUNK_SIZE).map_err(words)?.ok_or_else(|| missing(CHUNK_SIZE))?;
    let mut pairs: BTreeMap<&str, [Option<&TensorEntry>; 2]> = BTreeMap::new();
    for tensor in file.tensors() {
        for (place, suffix) in [SUMS, COUNTS].into_iter().enumerate() {
            if let Some(name) = tensor.name.strip_suffix(suffix) {
                pairs.entry(name).or_default()[place] = Some(tensor);
            }
        }
    }
    let mut matrix = ImportanceMatrix::new(datasets.to_vec(), chunks, chunk_tokens);
    for (name, pair) in pairs {
        let [Some(sums), Some(counts)] = pair else {
            return Err(format!("tensor {name:?} has sums or counts alone"));
        };
        let counts = values(file, counts)?.into_iter().map(count).collect::<Option<_>>();
        let counts = counts.ok_or_else(|| format!("tensor {name:?} has a count that is no number of rows"))?;
        let importance = Importance::new(values(file, sums)?, counts);
        matrix.insert(name, importance.map_err(|problem| format!("tensor {name:?}: {problem}"))?);
    }
    if matrix.is_empty() { Err(format!("no tensor ends in {SUMS:?}")) } else { Ok(matrix) }
}

fn values(file: &GgufFile, tensor: &TensorEntry) -> Result<Vec<f32>, String> {
    if tensor.block_type != BlockType::F32 {
        return Err(format!("tensor {:?} is {}, not F32", tensor.name, tensor.block_type.name()));
    }
    let (numbers, _) = file.data(tensor).as_chunks::<4>();
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn count(value: f32) -> Option<u64> {
    (0.0..MOST_ROWS).contains(&value).then(|| value.round() as u64)
}

pub(super) fn write(matrix: &ImportanceMatrix, path: &Path) -> Result<(), QuantizeError> {
    let mut metadata = Metadata::new();
    metadata.insert("general.type", "imatrix");
    metadata.insert(DATASETS, Value::Array(Array::String(matrix.datasets.clone())));
    metadata.insert(CHUNK_COUNT, matrix.chunks);
    metadata.insert(CHUNK_SIZE, matrix.chunk_tokens);
    let header = |name: String, dimensions| TensorHeader { name, dimensions, block_type: BlockType::F32 };
    let mut headers = Vec::with_capacity(2 * matrix.len());
    for (name, importance) in matrix.iter() {
        let matrices = importance.counts.len();
        headers.push(header(format!("{name}{SUMS}"), vec![importance.sums.len() / matrices, matrices]));
        headers.push(header(format!("{name}{COUNTS}"), vec![1, matrices]));
    }
    let mut writer = GgufWriter::create(path, &metadata, &headers)?;
    for (_, importance) in matrix.iter() {
        writer.write_tensor_data(&bytes(importance.sums.iter().copied()))?;
        writer.write_tensor_data(&bytes(importance.counts.iter().map(|&count| count as f32)))?;
    }
    Ok(writer.finish()?)
}

fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}
