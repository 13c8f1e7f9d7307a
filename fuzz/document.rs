//! Reading a document from memory, and cutting it into chunks.

use espalier_taxonomy::ChunkSettings;
use espalier_taxonomy::document::{Limits, extract_bytes};

pub fn read(name: &str, bytes: &[u8]) {
    let limits = Limits { text_bytes: 1 << 20, unpacked_bytes: 16 << 20, ..Limits::default() };
    let Ok(extracted) = extract_bytes(name.as_ref(), bytes, &limits) else { return };
    assert!(extracted.text.len() <= limits.text_bytes);
    let document = espalier_taxonomy::Document { path: name.into(), text: extracted.text };
    let _ = espalier_taxonomy::chunks(&document, &ChunkSettings { max_tokens: 8, overlap: 3 }, &|text: &str| text.len() / 4);
}
