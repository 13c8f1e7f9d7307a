//! Finding the tokens that are matched as whole texts before anything else is cut.

use super::SpecialTokens;
use super::vocabulary::{TokenKind, Vocabulary};

/// The whole-text tokens, by their first byte.
pub(crate) struct SpecialMatcher {
    /// Longest first within a byte.
    by_first_byte: Vec<Vec<Entry>>,
}

struct Entry {
    text: Box<[u8]>,
    id: u32,
    /// Control and unknown tokens are found only when the caller asks; user-defined ones are ordinary text and always found.
    only_when_parsing: bool,
}

/// A stretch of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

impl SpecialMatcher {
    /// From the kinds of a vocabulary.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Self {
        let mut by_first_byte: Vec<Vec<Entry>> = (0..256).map(|_| Vec::new()).collect();
        for (id, text) in vocabulary.texts().iter().enumerate() {
            let id = id as u32;
            let only_when_parsing = match vocabulary.kind(id) {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => continue,
            };
            if let Some(&first) = text.as_bytes().first() {
                by_first_byte[usize::from(first)].push(Entry { text: text.as_bytes().into(), id, only_when_parsing });
            }
        }
        for entries in &mut by_first_byte {
            entries.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        }
        Self { by_first_byte }
    }

    /// Cuts `text` at every whole-text token, the longest at each place.
    pub(crate) fn partition<'t>(&self, text: &'t str, special: SpecialTokens, emit: &mut impl FnMut(Fragment<'t>)) {
        let bytes = text.as_bytes();
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            let found = self.by_first_byte[usize::from(bytes[at])]
                .iter()
                .filter(|entry| special == SpecialTokens::Parse || !entry.only_when_parsing)
                .find(|entry| bytes[at..].starts_with(&entry.text));
            let Some(entry) = found else {
                at += 1;
                continue;
            };
            // A token's text is UTF-8, so that it can only match at character boundaries.
            if start < at {
                emit(Fragment::Text(&text[start..at]));
            }
            emit(Fragment::Token(entry.id));
            at += entry.text.len();
            start = at;
        }
        if start < text.len() {
            emit(Fragment::Text(&text[start..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(text: &str, special: SpecialTokens) -> Vec<String> {
        let texts = ["<|a|>", "<|a|>b", "  ", "x"].map(String::from).to_vec();
        let kinds = vec![TokenKind::Control, TokenKind::Control, TokenKind::UserDefined, TokenKind::Normal];
        let vocabulary = Vocabulary::new(texts, kinds, Vec::new(), true);
        let mut fragments = Vec::new();
        SpecialMatcher::new(&vocabulary).partition(text, special, &mut |fragment| {
            fragments.push(format!("{fragment:?}"));
        });
        fragments
    }

    #[test]
    fn the_longest_match_wins_and_text_stays_in_order() {
        assert_eq!(
            partition("é<|a|>bc<|a|>", SpecialTokens::Parse),
            ["Text(\"é\")", "Token(1)", "Text(\"c\")", "Token(0)"]
        );
    }

    #[test]
    fn user_text_never_becomes_a_control_token() {
        assert_eq!(partition("<|a|>  x", SpecialTokens::AsText), ["Text(\"<|a|>\")", "Token(2)", "Text(\"x\")"]);
    }
}
