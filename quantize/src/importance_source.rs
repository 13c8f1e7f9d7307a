//! An importance matrix as it is used to quantize: what it says of each tensor, and what the file says of it.

use std::borrow::Cow;

use espalier_model::gguf::Metadata;

use crate::{ImportanceMatrix, QuantizeError};

/// Bytes of a text in the metadata, at most: what llama-quantize keeps.
const TEXT_BYTES: usize = 127;

/// An importance matrix and the name of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportanceSource {
    /// The matrix.
    pub matrix: ImportanceMatrix,
    /// The name that the metadata of the quantized file keeps.
    pub file: String,
}

impl ImportanceSource {
    /// The mean squares for a tensor, matrix after matrix; none for an embedding that was not measured: it is looked up, not
    /// multiplied, and its product with the last state is measured only if asked for.
    ///
    /// # Errors
    ///
    /// When the entry is missing or has another length: it is of another model.
    pub(crate) fn means(&self, tensor: &str, dimensions: &[usize]) -> Result<Option<Cow<'_, [f32]>>, QuantizeError> {
        let columns = dimensions.first().copied().unwrap_or(1);
        let matrices = dimensions.iter().skip(2).product();
        match self.matrix.means(tensor, columns, matrices) {
            Ok(None) if tensor == "token_embd.weight" || tensor == "output.weight" => Ok(None),
            Ok(None) => Err(QuantizeError::MissingImportance { tensor: tensor.to_owned() }),
            Err(_) if tensor == "token_embd.weight" => Ok(None),
            found => found,
        }
    }

    /// Sets the keys that llama-quantize sets, in its order.
    pub(crate) fn write_to(&self, metadata: &mut Metadata) {
        let file = ("quantize.imatrix.file", Some(shortened(&self.file)));
        let dataset = ("quantize.imatrix.dataset", self.matrix.datasets().first().map(|name| shortened(name)));
        for (key, text) in [file, dataset] {
            if let Some(text) = text {
                metadata.remove(key);
                metadata.insert(key, text);
            }
        }
        let entries = u32::try_from(self.matrix.len()).unwrap_or(u32::MAX);
        let chunks = (self.matrix.chunks() > 0).then(|| self.matrix.chunks());
        for (key, number) in
            [("quantize.imatrix.entries_count", Some(entries)), ("quantize.imatrix.chunks_count", chunks)]
        {
            if let Some(number) = number {
                metadata.remove(key);
                metadata.insert(key, number);
            }
        }
    }

    /// Whether a key of a written file may differ from the source's.
    pub(crate) fn owns(key: &str) -> bool {
        key.starts_with("quantize.imatrix.")
    }
}

/// The beginning of a text, of whole characters.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}
