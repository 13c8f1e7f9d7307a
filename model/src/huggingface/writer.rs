//! Writing a Hugging Face folder: settings and tokenizer first, then the tensors in one stream, whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use espalier_kernels::BlockType;
use serde_json::{Map, Value as Json, json};

use super::{bad_json, config_json, names};
use crate::atomic_folder::{AtomicFolder, Existing};
use crate::row_order::RowOrder;
use crate::{Model, ModelError, TensorInfo};

/// Bytes of tensors in one file, as transformers and the Hub divide them.
const SHARD_BYTES: u64 = 5_000_000_000;

/// What a folder is taken over from one that the model came in: everything but the weights and their index.
const CARRIED: [&str; 15] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "USE_POLICY.md",
];

/// Types of the elements of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32.
    Bf16,
    /// 16 bits of IEEE 754.
    F16,
}

impl FloatType {
    /// That of the embedding where the model came as a Hugging Face folder; bf16 otherwise.
    pub fn of(model: &Model) -> Self {
        let embedding = model.tensor("token_embd.weight").map(|tensor| tensor.info().block_type);
        match (model.huggingface_folder(), embedding) {
            (Some(_), Ok(BlockType::F32)) => Self::F32,
            (Some(_), Ok(BlockType::F16)) => Self::F16,
            _ => Self::Bf16,
        }
    }

    /// The same as a type of blocks.
    pub fn block_type(self) -> BlockType {
        match self {
            Self::F32 => BlockType::F32,
            Self::Bf16 => BlockType::Bf16,
            Self::F16 => BlockType::F16,
        }
    }

    /// As `config.json` has it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// As the head of a safetensors file has it.
    fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }
}

/// How to write a folder.
#[derive(Clone, Copy, Debug)]
pub struct HuggingFaceOptions {
    /// Type of every tensor.
    pub float_type: FloatType,
    /// What to do about a folder of that name.
    pub existing: Existing,
    /// Bytes of tensors beyond which the next file begins; a file holds at least one tensor.
    pub shard_bytes: u64,
}

impl HuggingFaceOptions {
    /// For a model, with files of 5 GB, in a folder that is not there yet.
    pub fn of(model: &Model) -> Self {
        Self { float_type: FloatType::of(model), existing: Existing::Keep, shard_bytes: SHARD_BYTES }
    }
}

/// A tensor of the folder to be.
#[derive(Clone, Debug)]
pub struct FolderTensor {
    /// The GGUF name of the same tensor.
    pub gguf_name: String,
    /// Its name in the folder.
    pub name: String,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    dimensions: usize,
    order: RowOrder,
    /// What GGUF has more than the folder.
    offset: f32,
}

impl FolderTensor {
    /// From values as GGUF has them to values as the folder has them: norms of Gemma 3 lack 1 there.
    pub fn shift(&self, values: &mut [f32]) {
        if self.offset != 0.0 {
            for value in values {
                *value -= self.offset;
            }
        }
    }

    /// The row in GGUF order that stands as `row` in the folder.
    pub fn gguf_row(&self, row: usize) -> usize {
        self.order.in_gguf(row, self.rows)
    }

    fn bytes(&self, float_type: FloatType) -> u64 {
        self.rows as u64 * self.columns as u64 * float_type.block_type().block_bytes() as u64
    }
}

/// A folder in the making: everything but the data of the tensors is written on creation.
///
/// Files go to a folder `NAME.part` beside the target; the [`AtomicFolder`] that [`HuggingFaceWriter::finish`] gives still
/// has to be finished, so that the files can be read again before they have their name.
pub struct HuggingFaceWriter {
    folder: AtomicFolder,
    tensors: Vec<FolderTensor>,
    float_type: FloatType,
    shards: Vec<Shard>,
    open: Option<(PathBuf, BufWriter<File>)>,
    /// Place of the tensor whose data come next.
    current: usize,
    written: u64,
}

/// A file of tensors.
struct Shard {
    name: String,
    /// Places of its tensors.
    tensors: std::ops::Range<usize>,
}

impl HuggingFaceWriter {
    /// Writes settings, tokenizer, template and the index of the tensors.
    ///
    /// From a Hugging Face folder these files are taken over byte for byte (only `torch_dtype` becomes that of the tensors,
    /// where it is another one); otherwise they are made from the metadata.
    ///
    /// # Errors
    ///
    /// A model that no class of transformers computes, a folder that is already there, a disk that refuses.
    pub fn create(model: &Model, out: &Path, options: HuggingFaceOptions) -> Result<Self, ModelError> {
        let folder = AtomicFolder::create(out, options.existing)?;
        match model.huggingface_folder() {
            Some(source) => carry(source, folder.path(), options.float_type)?,
            None => make(model, folder.path(), options.float_type)?,
        }
        let tensors = tensors(model)?;
        let shards = divide(&tensors, options);
        if shards.len() > 1 {
            let index = index(&tensors, &shards, options.float_type);
            write_json(folder.path(), "model.safetensors.index.json", &index)?;
        }
        let float_type = options.float_type;
        Ok(Self { folder, tensors, float_type, shards, open: None, current: 0, written: 0 })
    }

    /// Another chat template than that of the model, in `chat_template.jinja` alone.
    ///
    /// # Errors
    ///
    /// A disk that refuses it, or a `tokenizer_config.json` that is not JSON.
    pub fn write_chat_template(&self, source: &str) -> Result<(), ModelError> {
        let folder = self.folder.path();
        let path = folder.join("chat_template.jinja");
        fs::write(&path, source).map_err(ModelError::file(&path, "write to it"))?;
        let path = folder.join("chat_template.json");
        if path.exists() {
            fs::remove_file(&path).map_err(ModelError::file(&path, "remove it"))?;
        }
        let path = folder.join("tokenizer_config.json");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let mut settings: Map<String, Json> =
            serde_json::from_str(&text).map_err(|error| bad_json(&error).in_file(&path))?;
        match settings.shift_remove("chat_template") {
            Some(_) => write_json(folder, "tokenizer_config.json", &Json::Object(settings)),
            None => Ok(()),
        }
    }

    /// The tensors in the order in which their data are to come.
    pub fn tensors(&self) -> &[FolderTensor] {
        &self.tensors
    }

    /// Appends data of the current tensor, in pieces of any length that end with the tensor; then the next one follows.
    ///
    /// # Errors
    ///
    /// More bytes than the current tensor has left, or a disk that refuses them.
    pub fn write_tensor_data(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let Some(tensor) = self.tensors.get(self.current) else {
            return Err(self.misuse(format!("{} bytes after the last tensor", bytes.len())));
        };
        let left = tensor.bytes(self.float_type) - self.written;
        if bytes.len() as u64 > left {
            let problem = format!("{} bytes for tensor {:?}, which lacks {left}", bytes.len(), tensor.name);
            return Err(self.misuse(problem));
        }
        if let Some(shard) = self.shards.iter().find(|shard| shard.tensors.start == self.current && self.written == 0) {
            self.open = Some(begin(self.folder.path(), shard, &self.tensors, self.float_type)?);
        }
        if let Some((path, file)) = &mut self.open {
            file.write_all(bytes).map_err(ModelError::file(path, "write to it"))?;
        }
        self.written += bytes.len() as u64;
        if bytes.len() as u64 == left {
            self.written = 0;
            self.current += 1;
            if self.shards.iter().any(|shard| shard.tensors.end == self.current) {
                self.close()?;
            }
        }
        Ok(())
    }

    /// The complete folder, still under its temporary name.
    ///
    /// # Errors
    ///
    /// Tensors whose data did not come.
    pub fn finish(self) -> Result<AtomicFolder, ModelError> {
        match self.tensors.get(self.current) {
            Some(tensor) => Err(self.misuse(format!("tensor {:?} has not all of its data", tensor.name))),
            None => Ok(self.folder),
        }
    }

    fn close(&mut self) -> Result<(), ModelError> {
        let Some((path, mut file)) = self.open.take() else {
            return Ok(());
        };
        file.flush().map_err(ModelError::file(&path, "write to it"))
    }

    fn misuse(&self, problem: String) -> ModelError {
        let remedy = "write the data of each tensor in the order and size that `tensors` gives";
        ModelError::invalid(self.folder.path().display().to_string(), problem, remedy)
    }
}

/// Every tensor of the model but the rotary factors, which stand in `config.json`.
fn tensors(model: &Model) -> Result<Vec<FolderTensor>, ModelError> {
    let config = model.config();
    let tensor = |info: &TensorInfo| {
        let name = names::tensor_from_gguf(&info.name, config.norms).ok_or_else(|| {
            ModelError::invalid(
                format!("tensor {:?}", info.name),
                "it has no name in a Hugging Face folder",
                "write a GGUF file instead: --out NAME.gguf",
            )
        })?;
        let module = info.name.strip_suffix(".weight");
        let heads = module.and_then(|module| config.permuted_heads(module));
        let order = heads.map_or(RowOrder::AsStored, |heads| RowOrder::Halves { heads });
        // No matrix of a model has one row; files may hold a vector as one.
        let dimensions = if info.rows == 1 { 1 } else { 2 };
        let offset = if info.name.ends_with("norm.weight") { config.architecture.norm_offset() } else { 0.0 };
        let (gguf_name, rows, columns) = (info.name.clone(), info.rows, info.columns);
        Ok(FolderTensor { gguf_name, name, rows, columns, dimensions, order, offset })
    };
    model.tensors().filter(|info| info.name != "rope_freqs.weight").map(tensor).collect()
}

fn divide(tensors: &[FolderTensor], options: HuggingFaceOptions) -> Vec<Shard> {
    let mut starts = vec![0];
    let mut bytes = 0_u64;
    for (at, tensor) in tensors.iter().enumerate() {
        let own = tensor.bytes(options.float_type);
        if bytes > 0 && bytes + own > options.shard_bytes {
            starts.push(at);
            bytes = 0;
        }
        bytes += own;
    }
    let count = starts.len();
    let ends = starts.iter().skip(1).copied().chain([tensors.len()]);
    let shard = |(number, (&start, end)): (usize, (&usize, usize))| {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        Shard { name, tensors: start..end }
    };
    starts.iter().zip(ends).enumerate().map(shard).collect()
}

fn index(tensors: &[FolderTensor], shards: &[Shard], float_type: FloatType) -> Json {
    let total: u64 = tensors.iter().map(|tensor| tensor.bytes(float_type)).sum();
    let mut files = Map::new();
    for shard in shards {
        for tensor in &tensors[shard.tensors.clone()] {
            files.insert(tensor.name.clone(), shard.name.as_str().into());
        }
    }
    json!({"metadata": {"total_size": total}, "weight_map": files})
}

/// Opens a file and writes its head: eight bytes of length, then names, types, shapes and places as JSON, padded with spaces
/// to a multiple of eight.
fn begin(
    folder: &Path,
    shard: &Shard,
    tensors: &[FolderTensor],
    float_type: FloatType,
) -> Result<(PathBuf, BufWriter<File>), ModelError> {
    let mut head = Map::new();
    head.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in &tensors[shard.tensors.clone()] {
        let end = offset + tensor.bytes(float_type);
        let shape = [tensor.rows, tensor.columns];
        let place = json!({
            "dtype": float_type.safetensors_name(), "shape": shape[2 - tensor.dimensions..], "data_offsets": [offset, end],
        });
        head.insert(tensor.name.clone(), place);
        offset = end;
    }
    let mut head = Json::Object(head).to_string();
    head.push_str(&" ".repeat(head.len().next_multiple_of(8) - head.len()));
    let path = folder.join(&shard.name);
    let file = File::create(&path).map_err(ModelError::file(&path, "create it"))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(head.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(head.as_bytes()))
        .map_err(ModelError::file(&path, "write to it"))?;
    Ok((path, file))
}

/// Takes the files of a folder over.
fn carry(source: &Path, folder: &Path, float_type: FloatType) -> Result<(), ModelError> {
    for name in CARRIED {
        let (from, to) = (source.join(name), folder.join(name));
        if from.is_file() {
            let bytes = fs::read(&from).map_err(ModelError::file(&from, "read it"))?;
            fs::write(&to, bytes).map_err(ModelError::file(&to, "write to it"))?;
        }
    }
    let (from, to) = (source.join("config.json"), folder.join("config.json"));
    let text = fs::read_to_string(&from).map_err(ModelError::file(&from, "read it as UTF-8 text"))?;
    let text = with_float_type(&text, float_type).map_err(|error| error.in_file(&from))?;
    fs::write(&to, text).map_err(ModelError::file(&to, "write to it"))
}

/// The same text, unless it states another type than the tensors have.
fn with_float_type(config: &str, float_type: FloatType) -> Result<String, ModelError> {
    let mut settings: Map<String, Json> = serde_json::from_str(config).map_err(|error| bad_json(&error))?;
    let mut changed = false;
    for key in ["torch_dtype", "dtype"] {
        if let Some(value) = settings.get_mut(key)
            && value.as_str() != Some(float_type.torch_name())
        {
            *value = float_type.torch_name().into();
            changed = true;
        }
    }
    Ok(if changed { format!("{:#}\n", Json::Object(settings)) } else { config.to_owned() })
}

/// Makes the files from the metadata.
fn make(model: &Model, folder: &Path, float_type: FloatType) -> Result<(), ModelError> {
    let tokenizer = model.tokenizer();
    let template = model.chat_template().source();
    for (name, content) in [
        ("config.json", config_json::config_json(model, float_type.torch_name())?),
        ("generation_config.json", config_json::generation_config_json(tokenizer)),
        ("tokenizer.json", tokenizer.to_tokenizer_json()?),
        ("tokenizer_config.json", tokenizer.to_tokenizer_config(model.config().context, template)),
        ("special_tokens_map.json", tokenizer.to_special_tokens_map()),
    ] {
        write_json(folder, name, &content)?;
    }
    Ok(())
}

fn write_json(folder: &Path, name: &str, content: &Json) -> Result<(), ModelError> {
    let path = folder.join(name);
    fs::write(&path, format!("{content:#}\n")).map_err(ModelError::file(&path, "write to it"))
}
