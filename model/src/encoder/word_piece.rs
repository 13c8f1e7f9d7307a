//! `WordPiece`: words cut into the longest pieces that the vocabulary has.
//!
//! A text is cleaned (control characters go, white space becomes spaces, Chinese characters stand alone), lowered and
//! stripped of accents where the tokenizer says so, cut at spaces and around punctuation, and each word into pieces, from its
//! beginning, those behind the first with a prefix (`##`).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use unicode_normalization::UnicodeNormalization;

use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;
use crate::huggingface::bad_json;
use crate::tokenizer::characters::{is_mark, is_other, is_punctuation};

/// Text to token ids of an encoder. Special tokens in a text are read as text.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are the switches of a BertNormalizer")]
pub struct WordPiece {
    ids: HashMap<String, u32>,
    /// Length of the vocabulary.
    length: usize,
    unknown: u32,
    start: u32,
    end: u32,
    /// What the pieces of a word but the first begin with.
    continuing: String,
    /// Words of more characters are unknown.
    longest_word: usize,
    cleans: bool,
    parts_chinese: bool,
    strips_accents: bool,
    lowers: bool,
}

#[derive(Deserialize)]
struct Source {
    model: Model,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: Map<String, Json>,
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
}

impl WordPiece {
    /// From the text of `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// Another model, normalizer or pre-tokenizer than those of BERT; no `[CLS]` or `[SEP]`.
    pub fn from_tokenizer_json(text: &str) -> Result<Self, ModelError> {
        let source: Source = serde_json::from_str(text).map_err(|error| bad_json(&error))?;
        let kind = |value: &Json| value["type"].as_str().unwrap_or("none").to_owned();
        let found = [
            ("model", source.model.kind.clone().unwrap_or_else(|| "WordPiece".into()), "WordPiece"),
            ("normalizer", kind(&source.normalizer), "BertNormalizer"),
            ("pre_tokenizer", kind(&source.pre_tokenizer), "BertPreTokenizer"),
        ];
        for (part, found, wanted) in found {
            if found != wanted {
                let problem = format!("it is {found:?}, but an encoder is read with {wanted}");
                return Err(ModelError::invalid(part, problem, "use an encoder with the tokenizer of BERT"));
            }
        }
        let mut ids = HashMap::with_capacity(source.model.vocab.len());
        for (text, id) in source.model.vocab {
            let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                return Err(ModelError::invalid("vocab", format!("the token {text:?} has no id"), DOWNLOAD_AGAIN));
            };
            ids.insert(text, id);
        }
        ids.extend(source.added_tokens.into_iter().map(|token| (token.content, token.id)));
        let id = |text: &str| {
            ids.get(text)
                .copied()
                .ok_or_else(|| ModelError::invalid("vocab", format!("there is no {text}"), DOWNLOAD_AGAIN))
        };
        let (unknown, start, end) = (id(&source.model.unk_token)?, id("[CLS]")?, id("[SEP]")?);
        let flag = |name: &str, default: bool| source.normalizer[name].as_bool().unwrap_or(default);
        let lowers = flag("lowercase", true);
        Ok(Self {
            length: ids.values().max().map_or(0, |most| *most as usize + 1),
            ids,
            unknown,
            start,
            end,
            continuing: source.model.continuing_subword_prefix,
            longest_word: source.model.max_input_chars_per_word,
            cleans: flag("clean_text", true),
            parts_chinese: flag("handle_chinese_chars", true),
            // Where it is not said, accents go with the capitals.
            strips_accents: flag("strip_accents", lowers),
            lowers,
        })
    }

    /// How many ids there are.
    pub fn vocabulary(&self) -> usize {
        self.length
    }

    /// The ids of a text between `[CLS]` and `[SEP]`, at most `most` of them; and how many were cut off.
    pub fn encode(&self, text: &str, most: usize) -> (Vec<u32>, usize) {
        let mut ids = vec![self.start];
        for word in words(&self.normalise(text)) {
            self.cut(word, &mut ids);
        }
        let cut = (ids.len() + 1).saturating_sub(most);
        ids.truncate(ids.len() - cut.min(ids.len()));
        ids.push(self.end);
        (ids, cut)
    }

    fn normalise(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for character in text.chars() {
            let is_space = matches!(character, '\t' | '\n' | '\r') || character.is_whitespace();
            if self.cleans && !is_space && (character == '\u{fffd}' || is_other(character)) {
                continue;
            }
            if self.cleans && is_space {
                clean.push(' ');
            } else if self.parts_chinese && is_chinese(character) {
                clean.extend([' ', character, ' ']);
            } else {
                clean.push(character);
            }
        }
        if self.strips_accents {
            clean = clean.nfd().filter(|character| !is_mark(*character)).collect();
        }
        if self.lowers { clean.chars().flat_map(char::to_lowercase).collect() } else { clean }
    }

    /// Adds the pieces of a word.
    fn cut(&self, word: &str, ids: &mut Vec<u32>) {
        if word.chars().count() > self.longest_word {
            ids.push(self.unknown);
            return;
        }
        let before = ids.len();
        let (mut begin, mut piece) = (0, String::new());
        while begin < word.len() {
            let ends = word[begin..].char_indices().map(|(at, character)| begin + at + character.len_utf8());
            let ends: Vec<usize> = ends.collect();
            let found = ends.into_iter().rev().find_map(|end| {
                piece.clear();
                if begin > 0 {
                    piece.push_str(&self.continuing);
                }
                piece.push_str(&word[begin..end]);
                self.ids.get(&piece).map(|id| (*id, end))
            });
            let Some((id, end)) = found else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            begin = end;
        }
    }
}

/// Words between white space; a character of punctuation is a word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(char::is_whitespace).flat_map(|run| {
        let mut rest = run;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let end = if is_cut(first) { first.len_utf8() } else { rest.find(is_cut).unwrap_or(rest.len()) };
            let (word, behind) = rest.split_at(end);
            rest = behind;
            Some(word)
        })
    })
}

fn is_cut(character: char) -> bool {
    character.is_ascii_punctuation() || is_punctuation(character)
}

/// The blocks of ideographs that BERT reads one by one.
fn is_chinese(character: char) -> bool {
    matches!(u32::from(character),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x2_a6df | 0x2_a700..=0x2_b73f
        | 0x2_b740..=0x2_b81f | 0x2_b920..=0x2_ceaf | 0x2_f800..=0x2_fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> WordPiece {
        let tokens = ["[UNK]", "[CLS]", "[SEP]", "gar", "##den", "a", ",", "##s", "中", "cafe", "'"];
        let vocab: Map<String, Json> =
            tokens.iter().enumerate().map(|(id, text)| ((*text).into(), id.into())).collect();
        let source = serde_json::json!({
            "normalizer": {"type": "BertNormalizer", "lowercase": true, "strip_accents": null},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 20},
        });
        WordPiece::from_tokenizer_json(&source.to_string()).unwrap()
    }

    #[test]
    fn words_are_cut_into_the_longest_pieces() {
        let tokenizer = tokenizer();
        let ids = |text: &str| tokenizer.encode(text, 100).0;
        assert_eq!(ids("Gardens, a\u{a0}CAFÉ's"), [1, 3, 4, 7, 6, 5, 9, 10, 0, 2]);
        assert_eq!(ids("a中a"), [1, 5, 8, 5, 2]);
        assert_eq!(ids("garx \u{7}a"), [1, 0, 5, 2]);
        assert_eq!(ids(&"a".repeat(21)), [1, 0, 2]);
        assert_eq!(ids(" \n"), [1, 2]);
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_counted() {
        assert_eq!(tokenizer().encode("a a a a", 4), (vec![1, 5, 5, 2], 2));
        assert_eq!(tokenizer().encode("a", 3), (vec![1, 5, 2], 0));
    }
}
