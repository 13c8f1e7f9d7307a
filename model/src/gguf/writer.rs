//! Writing GGUF: the head first, then the tensors in one stream, whole or not at all.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use espalier_kernels::BlockType;

use super::reader::tensor_bytes;
use super::{
    ALIGNMENT_KEY, ARCHITECTURE_KEY, Array, DEFAULT_ALIGNMENT, MAGIC, MOST_DIMENSIONS, Metadata, NAME_BYTES, VERSION,
    Value,
};
use crate::ModelError;
use crate::atomic_file::AtomicFile;

/// What must be known of a tensor before the first byte of data is written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorHeader {
    /// Its name, up to 63 bytes.
    pub name: String,
    /// Dimensions in ggml order (row length first), one to four.
    pub dimensions: Vec<usize>,
    /// Type of its blocks.
    pub block_type: BlockType,
}

/// A GGUF file in the making: version 3, tensors one after another, each padded to the alignment.
///
/// The bytes go to `NAME.part` beside the target; [`GgufWriter::finish`] flushes and renames it. Dropped before, the
/// temporary file goes and an older file of that name stays.
pub struct GgufWriter {
    path: PathBuf,
    file: AtomicFile,
    alignment: usize,
    /// Names and bytes of the tensors in order.
    tensors: Vec<(String, usize)>,
    current: usize,
    written: usize,
}

impl GgufWriter {
    /// Writes everything in front of the tensor data. `general.architecture` goes first wherever it stands.
    ///
    /// # Errors
    ///
    /// A file that cannot be created, names that are too long or doubled, partial blocks, a bad alignment.
    pub fn create(path: &Path, metadata: &Metadata, tensors: &[TensorHeader]) -> Result<Self, ModelError> {
        let (head, alignment, tensors) = encode_head(metadata, tensors).map_err(|error| error.in_file(path))?;
        let mut file = AtomicFile::create(path)?;
        file.write(&head)?;
        Ok(Self { path: path.to_owned(), file, alignment, tensors, current: 0, written: 0 })
    }

    /// Appends data of the current tensor, in pieces of any length that end with the tensor; then the next one follows.
    ///
    /// # Errors
    ///
    /// More bytes than the current tensor has left, or a disk that refuses them.
    pub fn write_tensor_data(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some((name, length)) = self.tensors.get(self.current) else {
            return Err(self.misuse(format!("{} bytes after the last tensor", bytes.len())));
        };
        let (length, left) = (*length, length - self.written);
        if bytes.len() > left {
            let problem = format!("{} bytes for tensor {name:?}, which lacks {left}", bytes.len());
            return Err(self.misuse(problem));
        }
        self.file.write(bytes)?;
        self.written += bytes.len();
        if self.written == length {
            let padding = length.next_multiple_of(self.alignment) - length;
            self.file.write(&vec![0; padding])?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes to the disk and gives the file its name.
    ///
    /// # Errors
    ///
    /// Tensors whose data did not come, or a disk that refuses.
    pub fn finish(self) -> Result<(), ModelError> {
        if let Some((name, length)) = self.tensors.get(self.current) {
            let problem = format!("tensor {name:?} has {} of its {length} bytes of data", self.written);
            return Err(self.misuse(problem));
        }
        self.file.finish()
    }

    fn misuse(&self, problem: String) -> ModelError {
        let remedy = "write the data of each tensor in the order and size of its header";
        ModelError::invalid(self.path.display().to_string(), problem, remedy)
    }
}

type Head = (Vec<u8>, usize, Vec<(String, usize)>);

fn encode_head(metadata: &Metadata, tensors: &[TensorHeader]) -> Result<Head, ModelError> {
    let alignment = metadata.get_u32(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT) as usize;
    if !alignment.is_power_of_two() {
        return Err(ModelError::KeyType {
            key: ALIGNMENT_KEY.to_owned(),
            expected: "a power of two".to_owned(),
            found: alignment.to_string(),
        });
    }
    let mut head = Vec::new();
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    put_size(&mut head, tensors.len());
    put_size(&mut head, metadata.len());
    let first = metadata.iter().filter(|(key, _)| *key == ARCHITECTURE_KEY);
    let others = metadata.iter().filter(|(key, _)| *key != ARCHITECTURE_KEY);
    for (key, value) in first.chain(others) {
        if key.is_empty() {
            return Err(ModelError::invalid("metadata", "a key has no name", "give it one"));
        }
        put_string(&mut head, key);
        head.extend_from_slice(&value.value_type().id().to_le_bytes());
        put_value(&mut head, value);
    }
    let mut lengths = Vec::with_capacity(tensors.len());
    let mut names = HashSet::new();
    let mut offset = 0_usize;
    for tensor in tensors {
        let name = &tensor.name;
        let problem = |problem: &str| ModelError::invalid(format!("tensor {name:?}"), problem, "correct its header");
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(problem("the name has not 1 to 63 bytes"));
        }
        if !names.insert(name) {
            return Err(problem("the name stands twice"));
        }
        if tensor.dimensions.len() > MOST_DIMENSIONS {
            return Err(problem("there are more than four dimensions"));
        }
        let length = tensor_bytes(&tensor.dimensions, tensor.block_type)
            .ok_or_else(|| problem("it is empty, too large, or its rows are not whole blocks"))?;
        put_string(&mut head, name);
        // At most four.
        head.extend_from_slice(&(tensor.dimensions.len() as u32).to_le_bytes());
        for &dimension in &tensor.dimensions {
            put_size(&mut head, dimension);
        }
        head.extend_from_slice(&tensor.block_type.ggml_id().to_le_bytes());
        put_size(&mut head, offset);
        offset = length
            .checked_next_multiple_of(alignment)
            .and_then(|padded| offset.checked_add(padded))
            .ok_or_else(|| problem("it is too large"))?;
        lengths.push((name.clone(), length));
    }
    head.resize(head.len().next_multiple_of(alignment), 0);
    Ok((head, alignment, lengths))
}

fn put_size(head: &mut Vec<u8>, size: usize) {
    head.extend_from_slice(&(size as u64).to_le_bytes());
}

fn put_string(head: &mut Vec<u8>, text: &str) {
    put_size(head, text.len());
    head.extend_from_slice(text.as_bytes());
}

fn put_value(head: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I8(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::U64(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => head.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => head.push(u8::from(*v)),
        Value::String(text) => put_string(head, text),
        Value::Array(array) => {
            head.extend_from_slice(&array.element_type().id().to_le_bytes());
            put_size(head, array.len());
            put_items(head, array);
        }
    }
}

fn put_items(head: &mut Vec<u8>, array: &Array) {
    match array {
        Array::U8(items) => head.extend_from_slice(items),
        Array::I8(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::U16(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::I16(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::U32(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::I32(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::F32(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::U64(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::I64(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::F64(items) => items.iter().for_each(|v| head.extend_from_slice(&v.to_le_bytes())),
        Array::Bool(items) => head.extend(items.iter().map(|&v| u8::from(v))),
        Array::String(items) => items.iter().for_each(|text| put_string(head, text)),
    }
}
