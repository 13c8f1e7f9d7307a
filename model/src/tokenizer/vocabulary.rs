//! The tokens of a vocabulary: their texts, kinds, scores and the bytes they stand for.

use std::collections::HashMap;

use super::byte_characters::byte_of;

/// What `SentencePiece` writes for a space.
pub(crate) const SPACE: char = '\u{2581}';

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl TokenKind {
    /// From the number in the file; numbers without a meaning count as unused.
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Unused,
        }
    }
}

/// Tokens by id and by text.
pub(crate) struct Vocabulary {
    texts: Vec<String>,
    kinds: Vec<TokenKind>,
    /// Empty where the algorithm needs none.
    scores: Vec<f32>,
    ids: HashMap<Box<str>, u32>,
    /// The bytes of all tokens one after another; token `id` ends at `ends[id]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Vocabulary {
    /// `kinds` has one entry a text; `byte_level` says how ordinary texts spell their bytes. Of equal texts the first has the id.
    pub(crate) fn new(texts: Vec<String>, kinds: Vec<TokenKind>, scores: Vec<f32>, byte_level: bool) -> Self {
        let mut ids = HashMap::with_capacity(texts.len());
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(texts.len());
        for (id, (text, kind)) in texts.iter().zip(&kinds).enumerate() {
            ids.entry(text.as_str().into()).or_insert(id as u32);
            match kind {
                TokenKind::Normal if byte_level => {
                    for character in text.chars() {
                        match byte_of(character) {
                            Some(byte) => bytes.push(byte),
                            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                        }
                    }
                }
                TokenKind::Normal => {
                    for character in text.chars() {
                        let character = if character == SPACE { ' ' } else { character };
                        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                TokenKind::Byte => match parse_byte(text) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend_from_slice(text.as_bytes()),
                },
                TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined | TokenKind::Unused => {
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
            ends.push(bytes.len());
        }
        Self { texts, kinds, scores, ids, bytes, ends }
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The text as the vocabulary writes it, empty for an id beyond the vocabulary.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", String::as_str)
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// An id beyond the vocabulary is unused.
    pub(crate) fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    pub(crate) fn kinds(&self) -> &[TokenKind] {
        &self.kinds
    }

    pub(crate) fn scores(&self) -> &[f32] {
        &self.scores
    }

    pub(crate) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// What the token stands for, empty for an id beyond the vocabulary.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match self.ends.get(id) {
            Some(&end) => &self.bytes[id.checked_sub(1).map_or(0, |before| self.ends[before])..end],
            None => &[],
        }
    }

    /// The token `<0xNN>`.
    pub(crate) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.id(&format!("<0x{byte:02X}>"))
    }
}

/// `<0x0A>` -> 10
fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_the_kind() {
        let texts = ["Ġa", "<0x0A>", "<s>", "語"].map(String::from).to_vec();
        let kinds = vec![TokenKind::Normal, TokenKind::Byte, TokenKind::Control, TokenKind::UserDefined];
        let vocabulary = Vocabulary::new(texts, kinds, Vec::new(), true);
        assert_eq!(vocabulary.bytes(0), b" a");
        assert_eq!(vocabulary.bytes(1), b"\n");
        assert_eq!(vocabulary.bytes(2), b"<s>");
        assert_eq!(vocabulary.bytes(3), "語".as_bytes());
        assert_eq!(vocabulary.bytes(4), b"");
        assert_eq!(vocabulary.byte_token(10), Some(1));
    }

    #[test]
    fn sentencepiece_writes_spaces_as_a_block() {
        let vocabulary = Vocabulary::new(vec!["▁the".into()], vec![TokenKind::Normal], vec![-1.0], false);
        assert_eq!(vocabulary.bytes(0), b" the");
    }
}
