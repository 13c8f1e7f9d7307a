//! Whether two tokenizers name the same things by the same ids.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::Tokenizer;
use super::vocabulary::TokenKind;

impl Tokenizer {
    /// SHA-256 over what every id stands for, in order of the ids. Unused ids at the end are left out: models of one family
    /// pad their vocabularies to different lengths.
    pub fn vocabulary_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for id in 0..self.used_ids() {
            let bytes = self.token_bytes(id);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first id that stands for something else in `other`, or for nothing there; `None` where ids can be exchanged.
    pub fn first_difference(&self, other: &Self) -> Option<u32> {
        let used = self.used_ids().max(other.used_ids());
        let meaning =
            |tokenizer: &'_ Self, id: u32| (id < tokenizer.used_ids()).then(|| tokenizer.token_bytes(id).to_vec());
        (0..used).find(|&id| meaning(self, id) != meaning(other, id))
    }

    fn used_ids(&self) -> u32 {
        let last = (0..self.vocabulary() as u32).rfind(|&id| self.vocabulary.kind(id) != TokenKind::Unused);
        last.map_or(0, |id| id + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Parts;
    use super::*;

    fn tokenizer(texts: &[&str], unused: usize) -> Tokenizer {
        let mut kinds = vec![TokenKind::Normal; texts.len()];
        kinds.resize(texts.len() + unused, TokenKind::Unused);
        let padding = (0..unused).map(|id| format!("[PAD{id}]"));
        let texts: Vec<String> = texts.iter().map(ToString::to_string).chain(padding).collect();
        Tokenizer::sentencepiece(Parts { scores: vec![0.0; texts.len()], texts, kinds, ..Parts::default() })
    }

    #[test]
    fn padding_makes_no_difference_and_another_token_does() {
        let short = tokenizer(&["▁a", "b", "c"], 0);
        let padded = tokenizer(&["▁a", "b", "c"], 5);
        assert_eq!(short.vocabulary_sha256(), padded.vocabulary_sha256());
        assert_eq!(short.first_difference(&padded), None);
        let longer = tokenizer(&["▁a", "b", "c", "d"], 0);
        assert_eq!(padded.first_difference(&longer), Some(3));
        assert_ne!(padded.vocabulary_sha256(), longer.vocabulary_sha256());
        let swapped = tokenizer(&["▁a", "c", "b"], 0);
        assert_eq!(short.first_difference(&swapped), Some(1));
        assert_ne!(short.vocabulary_sha256(), swapped.vocabulary_sha256());
        // Borders between tokens count: `ab` `c` is not `a` `bc`.
        assert_ne!(tokenizer(&["ab", "c"], 0).vocabulary_sha256(), tokenizer(&["a", "bc"], 0).vocabulary_sha256());
    }
}
