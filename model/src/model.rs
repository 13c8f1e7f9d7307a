//! An open model: configuration, tokenizer, template and tensors, whatever the files look like.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use espalier_kernels::BlockType;
use espalier_kernels::ops::RopeTable;
use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::config::{ModelConfig, Rotation};
use crate::gguf::{GgufFile, MAGIC, Metadata};
use crate::row_order::RowOrder;
use crate::tensor::{Tensor, TensorInfo};
use crate::{ChatTemplate, LoraAdapter, ModelError, Tokenizer, huggingface, llama2c};

/// Where bytes of tensors lie.
pub(crate) enum Backing {
    Map(Mmap),
    /// A tensor made while opening.
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Backing {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Backing {
    /// Takes pages of a map out of this process.
    pub(crate) fn release(&self, range: Range<usize>) {
        if let Self::Map(map) = self {
            crate::mapped_file::release(map, range);
        }
    }
}

/// A tensor with its place.
pub(crate) struct StoredTensor {
    pub(crate) info: TensorInfo,
    /// Index of the backing.
    pub(crate) backing: usize,
    pub(crate) bytes: Range<usize>,
    pub(crate) order: RowOrder,
}

impl StoredTensor {
    pub(crate) fn new(
        name: String,
        dimensions: Vec<usize>,
        block_type: BlockType,
        backing: usize,
        bytes: Range<usize>,
        order: RowOrder,
    ) -> Self {
        let columns = dimensions.first().copied().unwrap_or(1);
        let rows = dimensions.iter().skip(1).product();
        let info = TensorInfo { name, rows, columns, block_type, dimensions };
        Self { info, backing, bytes, order }
    }
}

/// What a source gives; [`Model::assemble`] checks it against the configuration.
pub(crate) struct Parts {
    pub(crate) metadata: Metadata,
    pub(crate) backings: Vec<Backing>,
    pub(crate) tensors: Vec<StoredTensor>,
    pub(crate) tokenizer: Tokenizer,
    /// Files that the hash covers: one gives its own hash, several the hash of the list of theirs.
    pub(crate) files: Vec<PathBuf>,
}

/// A model on disk, memory-mapped: opening reads the head of its files, rows are decoded as they are asked for.
pub struct Model {
    config: ModelConfig,
    tokenizer: Tokenizer,
    chat_template: ChatTemplate,
    metadata: Metadata,
    /// Shared with the weights that stay in the file.
    backings: Vec<Arc<Backing>>,
    tensors: Vec<StoredTensor>,
    index: HashMap<String, usize>,
    files: Vec<PathBuf>,
    sha256: OnceLock<String>,
}

impl Model {
    /// Opens a GGUF file, a Hugging Face folder (`config.json`, safetensors, `tokenizer.json`) or a llama2.c `.bin` with
    /// its `tok512.bin` beside it.
    ///
    /// # Errors
    ///
    /// Files that are missing or damaged, architectures and features that the native engine does not compute, tensors
    /// that are missing, unknown or of another shape than the configuration says. Messages name the file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::open_unnamed(path).map_err(|error| error.in_file(path))
    }

    fn open_unnamed(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return Self::assemble(huggingface::open(path)?, path);
        }
        if starts_with_magic(path)? {
            return Self::assemble(open_gguf(path)?, path);
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("bin") => Self::assemble(llama2c::open(path)?, path),
            Some("safetensors") => Err(ModelError::invalid(
                "model",
                "safetensors hold only weights",
                "pass the folder, which also holds config.json and tokenizer.json",
            )),
            // Its reader says what the file is not.
            _ => Self::assemble(open_gguf(path)?, path),
        }
    }

    fn assemble(parts: Parts, path: &Path) -> Result<Self, ModelError> {
        let Parts { metadata, backings, tensors, tokenizer, files } = parts;
        let mut index = HashMap::with_capacity(tensors.len());
        for (at, tensor) in tensors.iter().enumerate() {
            index.insert(tensor.info.name.clone(), at);
        }
        // The architecture first: what its tensors are called depends on it.
        crate::Architecture::from_name(metadata.require_str("general.architecture")?)?;
        let Some(&embedding) = index.get("token_embd.weight") else {
            return Err(ModelError::MissingTensor { name: "token_embd.weight".to_owned(), expected: "any".to_owned() });
        };
        let fallback = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let config = ModelConfig::from_metadata(
            &metadata,
            &fallback,
            tensors[embedding].info.rows,
            !index.contains_key("output.weight"),
            index.contains_key("blk.0.attn_q.bias"),
        )?;
        check_tensors(&config, &tensors, &index)?;
        if tokenizer.vocabulary() != config.vocabulary {
            return Err(ModelError::invalid(
                "tokenizer",
                format!("it has {} tokens, but the embedding has {} rows", tokenizer.vocabulary(), config.vocabulary),
                "the tokenizer is of another model: convert or download the model again",
            ));
        }
        let text = |id: Option<u32>| id.map_or("", |id| tokenizer.token_text(id));
        let chat_template = ChatTemplate::new(
            metadata.get_str("tokenizer.chat_template")?,
            text(tokenizer.bos()),
            text(tokenizer.eos()),
        )?;
        Ok(Self {
            config,
            tokenizer,
            chat_template,
            metadata,
            backings: backings.into_iter().map(Arc::new).collect(),
            tensors,
            index,
            files,
            sha256: OnceLock::new(),
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's chat template, or a plain built-in one.
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.chat_template
    }

    /// The Jinja that conversations go through with an adapter: that of the adapter, where it was trained with one of its own,
    /// else the model's; `None` for the plain built-in one.
    pub fn chat_template_source<'a>(&'a self, adapter: Option<&'a LoraAdapter>) -> Option<&'a str> {
        let own = (!self.chat_template.is_builtin()).then(|| self.chat_template.source());
        adapter.and_then(|adapter| adapter.chat_template.as_deref()).or(own)
    }

    /// The folder, where the model came as a Hugging Face folder.
    pub fn huggingface_folder(&self) -> Option<&Path> {
        let settings = self.files.iter().find(|file| file.ends_with("config.json"))?;
        settings.parent()
    }

    /// The GGUF metadata: of the file, or what a converter would write for the other sources.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in file order (for a Hugging Face folder: in the order that a converter writes).
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter().map(|tensor| &tensor.info)
    }

    /// Whether there is a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// A tensor by its GGUF name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, ModelError> {
        let Some(&at) = self.index.get(name) else {
            return Err(ModelError::MissingTensor { name: name.to_owned(), expected: "any".to_owned() });
        };
        let stored = &self.tensors[at];
        // Sources check every range against its backing before they hand it over.
        let backing = &self.backings[stored.backing];
        let bytes = &(**backing).as_ref()[stored.bytes.clone()];
        Ok(Tensor { info: &stored.info, bytes, order: stored.order, backing, first_byte: stored.bytes.start })
    }

    /// Divisors of the rotary frequencies (Llama 3.1 and later), one for each pair of dimensions.
    pub fn rope_frequency_factors(&self) -> Result<Option<Vec<f32>>, ModelError> {
        if !self.has_tensor("rope_freqs.weight") {
            return Ok(None);
        }
        self.tensor("rope_freqs.weight")?.to_vec().map(Some)
    }

    /// Cosines and sines of each layer for `positions`, `None` where it is not rotated; layers that turn alike share them.
    pub fn rope_tables(&self, positions: usize) -> Result<Vec<Option<Arc<RopeTable>>>, ModelError> {
        let factors = self.rope_frequency_factors()?;
        let mut tables: Vec<(Rotation, Arc<RopeTable>)> = Vec::new();
        let table = |layer| {
            let rotation = self.config.layer_attention(layer).rotation?;
            if let Some((_, table)) = tables.iter().find(|(known, _)| *known == rotation) {
                return Some(Arc::clone(table));
            }
            let table = Arc::new(rotation.table(&self.config, factors.as_deref(), positions));
            tables.push((rotation, Arc::clone(&table)));
            Some(table)
        };
        Ok((0..self.config.layers).map(table).collect())
    }

    /// SHA-256 in 64 hexadecimal digits, computed once: of the bytes of a single file; for several files, of the lines
    /// `HASH  NAME` in the order of their names, as `sha256sum` prints them.
    pub fn sha256(&self) -> Result<String, ModelError> {
        if let Some(hash) = self.sha256.get() {
            return Ok(hash.clone());
        }
        let hash = match self.files.as_slice() {
            [file] => hash_file(file)?,
            files => {
                let line = |file: &PathBuf| {
                    let name = file.file_name().unwrap_or_default().to_string_lossy();
                    Ok(format!("{}  {name}\n", hash_file(file)?))
                };
                let lines: String = files.iter().map(line).collect::<Result<_, ModelError>>()?;
                hexadecimal(&Sha256::digest(lines.as_bytes()))
            }
        };
        Ok(self.sha256.get_or_init(|| hash).clone())
    }
}

fn starts_with_magic(path: &Path) -> Result<bool, ModelError> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(ModelError::file(path, "open it"))?;
    let mut start = Vec::with_capacity(4);
    file.take(4).read_to_end(&mut start).map_err(ModelError::file(path, "read it"))?;
    Ok(start == MAGIC)
}

fn open_gguf(path: &Path) -> Result<Parts, ModelError> {
    let file = GgufFile::open(path)?;
    match file.metadata().get_str("general.type")? {
        None | Some("model") => {}
        Some(other) => {
            return Err(ModelError::invalid(
                "metadata key \"general.type\"",
                format!("this is not a model but {other:?}"),
                "pass the base model (an adapter goes to --adapter)",
            ));
        }
    }
    // Before the tokenizer, so that an unknown architecture is refused by its name.
    crate::Architecture::from_name(file.metadata().require_str("general.architecture")?)?;
    let tokenizer = Tokenizer::from_gguf_metadata(file.metadata())?;
    let (map, metadata, entries) = file.into_parts();
    let tensors = entries
        .into_iter()
        .map(|entry| {
            let order = RowOrder::AsStored;
            StoredTensor::new(entry.name, entry.dimensions, entry.block_type, 0, entry.bytes, order)
        })
        .collect();
    let (backings, files) = (vec![Backing::Map(map)], vec![path.to_owned()]);
    Ok(Parts { metadata, backings, tensors, tokenizer, files })
}

/// Every tensor that the configuration asks for is there in its shape, and no other that would change the result.
fn check_tensors(
    config: &ModelConfig,
    tensors: &[StoredTensor],
    index: &HashMap<String, usize>,
) -> Result<(), ModelError> {
    let expected = config.expected_tensors();
    for wanted in &expected {
        let Some(&at) = index.get(&wanted.name) else {
            return Err(ModelError::MissingTensor {
                name: wanted.name.clone(),
                expected: format!("{:?}", wanted.dimensions),
            });
        };
        let found = &tensors[at].info.dimensions;
        // Trailing ones say nothing.
        let significant = found.iter().rposition(|&n| n != 1).map_or(1, |last| last + 1);
        let wanted_significant = wanted.dimensions.iter().rposition(|&n| n != 1).map_or(1, |last| last + 1);
        if found[..significant] != wanted.dimensions[..wanted_significant] {
            return Err(ModelError::TensorShape {
                name: wanted.name.clone(),
                found: found.clone(),
                expected: wanted.dimensions.clone(),
            });
        }
    }
    let known: std::collections::HashSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
    for tensor in tensors {
        let info = &tensor.info;
        if known.contains(info.name.as_str()) {
            continue;
        }
        if info.name != "rope_freqs.weight" {
            return Err(ModelError::invalid(
                format!("tensor {:?}", info.name),
                format!("architecture {} has no use for it", config.architecture.name()),
                "the model has a part that the native engine does not compute: serve it with llama-server and \
                 pass --engine http://HOST:PORT",
            ));
        }
        let wanted = vec![config.rotary_dims / 2];
        if info.dimensions != wanted {
            return Err(ModelError::TensorShape {
                name: info.name.clone(),
                found: info.dimensions.clone(),
                expected: wanted,
            });
        }
    }
    Ok(())
}

pub(crate) fn hash_file(path: &Path) -> Result<String, ModelError> {
    let map = crate::mapped_file::map_file(path)?;
    Ok(hexadecimal(&Sha256::digest(&map[..])))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_can_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Model>();
        shared::<Tensor<'_>>();
    }

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(hash_file(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
