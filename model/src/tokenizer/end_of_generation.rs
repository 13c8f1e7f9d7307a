//! The tokens at which generation ends.

use super::Parts;
use super::vocabulary::TokenKind;

/// Texts that end a turn or a document in some family of models, whatever ids the file names.
const KNOWN: [&str; 13] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
];

/// The ids in order. Tokens found by text become control tokens: some converters mark them as user text.
pub(super) fn find(parts: &mut Parts) -> Vec<u32> {
    let named = [parts.ids.eos, parts.ids.eot, parts.ids.eom];
    let mut found: Vec<u32> = named.into_iter().flatten().collect();
    for (id, (text, kind)) in parts.texts.iter().zip(&mut parts.kinds).enumerate() {
        if KNOWN.contains(&text.as_str()) {
            *kind = TokenKind::Control;
            found.push(id as u32);
        } else if text == "</s>" && *kind == TokenKind::Control {
            // In vocabularies of HTML and chat it can be ordinary text.
            found.push(id as u32);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_ids_and_known_texts() {
        let mut parts = Parts {
            texts: ["a", "<|im_end|>", "</s>", "</s>", "b"].map(String::from).to_vec(),
            kinds: vec![
                TokenKind::Normal,
                TokenKind::UserDefined,
                TokenKind::Normal,
                TokenKind::Control,
                TokenKind::Normal,
            ],
            ..Parts::default()
        };
        parts.ids.eot = Some(4);
        assert_eq!(find(&mut parts), [1, 3, 4]);
        assert_eq!(parts.kinds[1], TokenKind::Control);
        assert_eq!(parts.kinds[2], TokenKind::Normal);
    }
}
