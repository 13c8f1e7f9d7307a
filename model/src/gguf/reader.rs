//! Reading GGUF: every count, length and offset is checked against the file before it is used.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use espalier_kernels::BlockType;
use memmap2::Mmap;

use super::cursor::Cursor;
use super::{
    ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, MAGIC, MOST_DIMENSIONS, Metadata, NAME_BYTES, VERSION, Value, ValueType,
};
use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;
use crate::mapped_file::map_file;

/// What a GGUF file says about one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Dimensions in ggml order (row length first); at least one.
    pub dimensions: Vec<usize>,
    /// Type of its blocks.
    pub block_type: BlockType,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

/// An open GGUF file, mapped into memory.
pub struct GgufFile {
    path: PathBuf,
    map: Mmap,
    contents: Contents,
    index: HashMap<String, usize>,
}

impl GgufFile {
    /// Opens and checks a file of version 2 or 3.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or whose bytes contradict the format; the message names file and offset.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map_file(path)?;
        let contents = parse(&map).map_err(|error| error.in_file(path))?;
        let index = contents.tensors.iter().enumerate().map(|(at, t)| (t.name.clone(), at)).collect();
        Ok(Self { path: path.to_owned(), map, contents, index })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.contents.version
    }

    /// Alignment of the tensor data in bytes.
    pub fn alignment(&self) -> usize {
        self.contents.alignment
    }

    /// Keys and values in file order.
    pub fn metadata(&self) -> &Metadata {
        &self.contents.metadata
    }

    /// Tensors in file order.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.contents.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.index.get(name).map(|&at| &self.contents.tensors[at])
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &TensorEntry) -> &[u8] {
        // Empty for an entry of another file whose range is not in this one.
        self.map.get(tensor.bytes.clone()).unwrap_or_default()
    }

    /// Takes the file apart: the map and what was read from it.
    pub(crate) fn into_parts(self) -> (Mmap, Metadata, Vec<TensorEntry>) {
        (self.map, self.contents.metadata, self.contents.tensors)
    }
}

/// What stands in front of the tensor data.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorEntry>,
}

/// Reads the whole head of a file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Contents, ModelError> {
    let mut cursor = Cursor::new(bytes);
    let magic = cursor.take(4, "the four letters GGUF")?;
    if magic != MAGIC {
        return Err(ModelError::Format {
            offset: 0,
            expected: "the four letters GGUF".to_owned(),
            found: format!("{:?}", String::from_utf8_lossy(magic)),
            remedy: "this is no GGUF file: pass a .gguf file, a Hugging Face folder or a llama2.c .bin".to_owned(),
        });
    }
    let version = cursor.u32("the version")?;
    if !(2..=VERSION).contains(&version) {
        let remedy = if version.swap_bytes() <= VERSION {
            "the file is big endian: convert it on a little-endian machine"
        } else {
            "convert the model again with a current converter"
        };
        return Err(ModelError::Format {
            offset: 4,
            expected: "GGUF version 2 or 3".to_owned(),
            found: format!("version {version}"),
            remedy: remedy.to_owned(),
        });
    }
    // A tensor takes at least its name's length, one dimension count, type and offset; a key its length, type and a byte.
    let tensor_count = cursor.count("the number of tensors", 24)?;
    let key_count = cursor.count("the number of metadata keys", 13)?;
    // Both stand before any of their items, so together they must fit as well; items fail one by one where they do not.
    let metadata = read_metadata(&mut cursor, key_count)?;
    let alignment = read_alignment(&metadata)?;
    let mut tensors = read_tensor_infos(&mut cursor, tensor_count)?;
    place_tensors(&mut tensors, cursor.at(), alignment, bytes.len())?;
    let tensors = tensors.into_iter().map(|pending| pending.entry).collect();
    Ok(Contents { version, alignment, metadata, tensors })
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata, ModelError> {
    let mut metadata = Metadata::new();
    for _ in 0..count {
        let at = cursor.at();
        let key = cursor.string("the name of a metadata key")?;
        if key.is_empty() {
            return Err(ModelError::format(at, "the name of a metadata key", "an empty name"));
        }
        let value = read_value(cursor, key)?;
        if metadata.insert(key, value).is_some() {
            return Err(ModelError::format(at, "each metadata key once", format!("{key:?} a second time")));
        }
    }
    Ok(metadata)
}

fn read_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, ModelError> {
    let at = cursor.at();
    let id = cursor.u32("a value type")?;
    ValueType::from_id(id)
        .ok_or_else(|| ModelError::format(at, format!("a value type from 0 to 12 for key {key:?}"), format!("{id}")))
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, ModelError> {
    let what = "the value of a metadata key";
    Ok(match read_type(cursor, key)? {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(what)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(what)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(what)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(what)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(cursor.array(what)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(what)?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(cursor.array(what)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(what)?)),
        ValueType::Bool => Value::Bool(cursor.bool()?),
        ValueType::String => Value::String(cursor.string(what)?.to_owned()),
        ValueType::Array => Value::Array(read_array(cursor, key)?),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, ModelError> {
    /// The numbers of an array whose bytes are already known to be there.
    fn numbers<const N: usize, T>(
        cursor: &mut Cursor<'_>,
        count: usize,
        convert: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, ModelError> {
        let bytes = cursor.take(count * N, "the elements of an array")?;
        let (chunks, _) = bytes.as_chunks::<N>();
        Ok(chunks.iter().map(|&chunk| convert(chunk)).collect())
    }
    let at = cursor.at();
    let element = read_type(cursor, key)?;
    if element == ValueType::Array {
        return Err(ModelError::format(at, format!("an array of plain values for key {key:?}"), "an array of arrays"));
    }
    // The count is bounded by the bytes that remain, so `count * N` cannot overflow.
    let count = cursor.count("the number of elements of an array", element.least_bytes())?;
    Ok(match element {
        ValueType::U8 => Array::U8(numbers(cursor, count, u8::from_le_bytes)?),
        ValueType::I8 => Array::I8(numbers(cursor, count, i8::from_le_bytes)?),
        ValueType::U16 => Array::U16(numbers(cursor, count, u16::from_le_bytes)?),
        ValueType::I16 => Array::I16(numbers(cursor, count, i16::from_le_bytes)?),
        ValueType::U32 => Array::U32(numbers(cursor, count, u32::from_le_bytes)?),
        ValueType::I32 => Array::I32(numbers(cursor, count, i32::from_le_bytes)?),
        ValueType::F32 => Array::F32(numbers(cursor, count, f32::from_le_bytes)?),
        ValueType::U64 => Array::U64(numbers(cursor, count, u64::from_le_bytes)?),
        ValueType::I64 => Array::I64(numbers(cursor, count, i64::from_le_bytes)?),
        ValueType::F64 => Array::F64(numbers(cursor, count, f64::from_le_bytes)?),
        ValueType::Bool => {
            let mut items = Vec::with_capacity(count);
            for _ in 0..count {
                items.push(cursor.bool()?);
            }
            Array::Bool(items)
        }
        // Arrays were refused above.
        ValueType::String | ValueType::Array => {
            // Not reserved by `count`: a `String` is larger than the least it takes in the file.
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(cursor.string("a string of an array")?.to_owned());
            }
            Array::String(items)
        }
    })
}

fn read_alignment(metadata: &Metadata) -> Result<usize, ModelError> {
    let alignment = metadata.get_u32(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() {
        return Err(ModelError::KeyType {
            key: ALIGNMENT_KEY.to_owned(),
            expected: "a power of two".to_owned(),
            found: alignment.to_string(),
        });
    }
    Ok(alignment as usize)
}

/// A tensor whose place in the file is not checked yet.
struct Pending {
    entry: TensorEntry,
    /// Where its information stands, for messages.
    info_at: usize,
    offset: usize,
    length: usize,
}

fn read_tensor_infos(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Pending>, ModelError> {
    let mut tensors: Vec<Pending> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..count {
        let info_at = cursor.at();
        let name = cursor.string("the name of a tensor")?;
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(ModelError::format(
                info_at,
                format!("a tensor name of 1 to {NAME_BYTES} bytes"),
                format!("{} bytes", name.len()),
            ));
        }
        if !seen.insert(name) {
            return Err(ModelError::format(info_at, "each tensor name once", format!("{name:?} a second time")));
        }
        let rank = cursor.u32("the number of dimensions of a tensor")? as usize;
        if rank > MOST_DIMENSIONS {
            return Err(ModelError::format(
                info_at,
                format!("at most {MOST_DIMENSIONS} dimensions for tensor {name:?}"),
                format!("{rank}"),
            ));
        }
        let mut dimensions = Vec::with_capacity(rank.max(1));
        for _ in 0..rank {
            dimensions.push(cursor.size("a dimension of a tensor")?);
        }
        if dimensions.is_empty() {
            // A scalar.
            dimensions.push(1);
        }
        let type_at = cursor.at();
        let type_id = cursor.u32("the type of a tensor")?;
        let block_type = BlockType::from_ggml(type_id).ok_or_else(|| ModelError::Format {
            offset: type_at as u64,
            expected: "a tensor type that Espalier reads (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, \
                       Q2_K to Q6_K)"
                .to_owned(),
            found: format!("type {type_id}{} for tensor {name:?}", foreign_type(type_id)),
            remedy: "quantize the model to one of these types, or serve it with llama-server and pass \
                     --engine http://HOST:PORT"
                .to_owned(),
        })?;
        let offset = cursor.size("the offset of a tensor")?;
        let length = tensor_bytes(&dimensions, block_type).ok_or_else(|| {
            ModelError::format(
                info_at,
                format!(
                    "dimensions above zero with rows of whole {} blocks ({} elements) for tensor {name:?}",
                    block_type.name(),
                    block_type.block_size()
                ),
                format!("{dimensions:?}"),
            )
        })?;
        let entry = TensorEntry { name: name.to_owned(), dimensions, block_type, bytes: 0..0 };
        tensors.push(Pending { entry, info_at, offset, length });
    }
    Ok(tensors)
}

/// Bytes of a tensor without padding; `None` for an empty one, for partial blocks and for sizes beyond the address space.
pub(crate) fn tensor_bytes(dimensions: &[usize], block_type: BlockType) -> Option<usize> {
    let (&columns, outer) = dimensions.split_first()?;
    let rows = outer.iter().try_fold(1_usize, |rows, &n| rows.checked_mul(n))?;
    if columns == 0 || rows == 0 {
        return None;
    }
    // ggml counts elements in i64.
    columns.checked_mul(rows).filter(|&n| i64::try_from(n).is_ok())?;
    block_type.row_bytes(columns)?.checked_mul(rows)
}

/// Sets the place of each tensor; like ggml it wants them one after another in the order of their information, which
/// also rules out overlaps.
fn place_tensors(tensors: &mut [Pending], head: usize, alignment: usize, file: usize) -> Result<(), ModelError> {
    let beyond = |at: usize, name: &str| ModelError::Format {
        offset: at as u64,
        expected: format!("the data of tensor {name:?} within the file"),
        found: format!("that it goes beyond the end of the {file} bytes"),
        remedy: DOWNLOAD_AGAIN.to_owned(),
    };
    let mut expected = 0_usize;
    for pending in tensors {
        let name = &pending.entry.name;
        if pending.offset != expected {
            return Err(ModelError::format(
                pending.info_at,
                format!("offset {expected} for the data of tensor {name:?}"),
                format!("offset {}", pending.offset),
            ));
        }
        let start = head
            .checked_next_multiple_of(alignment)
            .and_then(|data| data.checked_add(pending.offset))
            .ok_or_else(|| beyond(pending.info_at, name))?;
        let end = start.checked_add(pending.length).filter(|&end| end <= file).ok_or_else(|| beyond(start, name))?;
        expected = pending
            .length
            .checked_next_multiple_of(alignment)
            .and_then(|padded| expected.checked_add(padded))
            .ok_or_else(|| beyond(start, name))?;
        pending.entry.bytes = start..end;
    }
    Ok(())
}

/// Names of ggml types that are not read here, for messages.
fn foreign_type(id: u32) -> &'static str {
    match id {
        9 => " (Q8_1)",
        15 => " (Q8_K)",
        16 => " (IQ2_XXS)",
        17 => " (IQ2_XS)",
        18 => " (IQ3_XXS)",
        19 => " (IQ1_S)",
        20 => " (IQ4_NL)",
        21 => " (IQ3_S)",
        22 => " (IQ2_S)",
        23 => " (IQ4_XS)",
        24 => " (I8)",
        25 => " (I16)",
        26 => " (I32)",
        27 => " (I64)",
        28 => " (F64)",
        29 => " (IQ1_M)",
        34 => " (TQ1_0)",
        35 => " (TQ2_0)",
        39 => " (MXFP4)",
        _ => "",
    }
}
