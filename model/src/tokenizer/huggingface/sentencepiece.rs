//! `SentencePiece` in `tokenizer.json`: its scores as the ranks of merges, its spaces as a normalizer, bytes to fall back to.
//!
//! `SentencePiece` joins the neighbours whose text is the token of the best score; byte-pair encoding those whose merge has
//! the first rank. With one merge for each way to cut a token in two, in the order of the scores, both do the same.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::kind;
use crate::ModelError;
use crate::tokenizer::Parts;
use crate::tokenizer::vocabulary::{SPACE, TokenKind, Vocabulary};

/// Of tokens that no merge makes: below every rank.
const NEVER: f32 = -1e9;

/// The merges of a vocabulary with scores, best first; of equal scores the longer left part first, as transformers'
/// converter orders them.
pub(super) fn merges(vocabulary: &Vocabulary) -> Vec<(&str, &str)> {
    struct Cut<'v> {
        score: f32,
        /// Ids of the parts: the order among the ways to cut one token.
        parts: (u32, u32),
        texts: (&'v str, &'v str),
        characters: (usize, usize),
    }
    let mut cuts = Vec::new();
    for (id, text) in vocabulary.texts().iter().enumerate() {
        if vocabulary.id(text) != Some(id as u32) {
            continue;
        }
        for (at, _) in text.char_indices().skip(1) {
            let texts = text.split_at(at);
            if let (Some(left), Some(right)) = (vocabulary.id(texts.0), vocabulary.id(texts.1)) {
                let characters = (texts.0.chars().count(), texts.1.chars().count());
                cuts.push(Cut { score: vocabulary.score(id as u32) + 0.0, parts: (left, right), texts, characters });
            }
        }
    }
    cuts.sort_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| Reverse(a.characters).cmp(&Reverse(b.characters)))
            .then(a.parts.cmp(&b.parts))
    });
    cuts.into_iter().map(|cut| cut.texts).collect()
}

/// Scores from the ranks of the merges, and the kinds that `tokenizer.json` does not state.
pub(super) fn complete(parts: &mut Parts, merges: impl Iterator<Item = String>, unknown: Option<&str>) {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, merge) in merges.enumerate() {
        // No part has a plain space in it: theirs is `▁`.
        ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
    }
    parts.scores = parts.texts.iter().map(|text| ranks.get(text).map_or(NEVER, |&rank| -(rank as f32))).collect();
    for (id, (text, kind)) in parts.texts.iter().zip(&mut parts.kinds).enumerate() {
        if text.len() == 6 && text.starts_with("<0x") && text.ends_with('>') && *kind == TokenKind::Normal {
            *kind = TokenKind::Byte;
        }
        if unknown == Some(text.as_str()) {
            *kind = TokenKind::Unknown;
            parts.ids.unknown = Some(id as u32);
        }
    }
}

/// The normalizer that writes spaces as `▁`, with one in front of a text or without.
pub(super) fn normalizer(space_prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if space_prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    }
}

/// What [`normalizer`] undoes.
pub(super) fn decoder(space_prefix: bool) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space_prefix {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

/// Whether the normalizer puts a space in front of a text.
///
/// # Errors
///
/// Any other way to treat spaces: `Metaspace` puts none after a special token, or none before a space.
pub(super) fn adds_space_prefix(normalizer_found: &Value, pre_tokenizer: &Value) -> Result<bool, ModelError> {
    let same = |space_prefix: bool| {
        let (wanted, found) = (normalizer(space_prefix), normalizer_found);
        match found.get("normalizers").and_then(Value::as_array) {
            // One step in a sequence is that step.
            Some(steps) if steps.len() == 1 => steps[0] == wanted,
            _ => *found == wanted,
        }
    };
    let found = [true, false].into_iter().find(|&space_prefix| same(space_prefix));
    found.filter(|_| pre_tokenizer.is_null()).ok_or_else(|| {
        let step = if pre_tokenizer.is_null() { kind(normalizer_found) } else { kind(pre_tokenizer) };
        ModelError::invalid(
            "tokenizer.json",
            format!("the way in which {step:?} treats spaces is not supported in a SentencePiece model"),
            "convert the model to GGUF and use that file",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_have_the_order_of_the_scores() {
        let texts = ["<unk>", "▁", "a", "b", "ab", "▁a", "▁ab"].map(String::from).to_vec();
        let kinds = vec![TokenKind::Normal; 7];
        let vocabulary = Vocabulary::new(texts.clone(), kinds.clone(), vec![0., -5., -6., -7., -2., -1., -3.], false);
        let merges = merges(&vocabulary);
        assert_eq!(merges, [("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "ab")]);
        let mut parts = Parts { texts, kinds, ..Parts::default() };
        complete(&mut parts, merges.iter().map(|(left, right)| format!("{left} {right}")), Some("<unk>"));
        assert_eq!(parts.scores, [NEVER, NEVER, NEVER, NEVER, -1.0, 0.0, -2.0]);
        assert_eq!((parts.kinds[0], parts.ids.unknown), (TokenKind::Unknown, Some(0)));
    }

    #[test]
    fn spaces_are_read_as_they_are_written() {
        for space_prefix in [true, false] {
            assert_eq!(adds_space_prefix(&normalizer(space_prefix), &Value::Null).unwrap(), space_prefix);
        }
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
        let message = adds_space_prefix(&Value::Null, &metaspace).unwrap_err().to_string();
        assert!(message.contains("Metaspace"), "{message}");
        assert!(adds_space_prefix(&json!({"type": "Lowercase"}), &Value::Null).is_err());
    }
}
