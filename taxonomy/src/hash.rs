//! The content hash of a leaf.

use sha2::{Digest, Sha256};

use crate::leaf::Leaf;

impl Leaf {
    /// Hexadecimal sha256 over what decides the leaf's rows: as [`Leaf::hash`], but for how often training takes them.
    pub fn hash_of_rows(&self) -> String {
        match self.weight {
            None => self.hash.clone(),
            Some(_) => content_hash(&Self { weight: None, ..self.clone() }),
        }
    }
}

/// Hexadecimal sha256 over everything that decides what the leaf teaches. Where it lies, how its YAML is laid out and who
/// wrote it do not matter.
pub(crate) fn content_hash(leaf: &Leaf) -> String {
    let seeds: Vec<_> =
        leaf.seeds.iter().map(|seed| (&seed.question, &seed.answer, &seed.context, &seed.history)).collect();
    let documents: Vec<&String> = leaf.documents.iter().map(|document| &document.text).collect();
    let content = serde_json::json!({
        "version": leaf.version,
        "kind": leaf.kind,
        "task_description": leaf.task_description,
        "domain": leaf.domain,
        "document_outline": leaf.document_outline,
        "seeds": seeds,
        "documents": documents,
        "questions": leaf.questions,
        "verify": leaf.verify,
        "test": leaf.test,
        "samples": leaf.samples,
        "flow": leaf.flow,
        "temperature": leaf.temperature,
        "weight": leaf.weight,
        "language": leaf.language,
        "license": leaf.license,
    });
    hexadecimal(&Sha256::digest(content.to_string().as_bytes()))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
