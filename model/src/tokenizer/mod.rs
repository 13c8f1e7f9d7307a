//! Text to token ids and back: byte-level byte-pair encoding (GPT-2, `SmolLM`, Qwen, Llama 3) and `SentencePiece` (Llama 2,
//! llama2.c), exact to the id with llama.cpp.
//!
//! A tokenizer comes from the metadata of a GGUF file, from a `tokenizer.json` or from the `tok512.bin` of llama2.c. Encoding
//! goes in four steps: cut at special tokens, cut into pieces by the pre-tokenizer, merge the symbols of each piece, look up.

mod bpe;
mod byte_characters;
pub(crate) mod characters;
mod end_of_generation;
mod huggingface;
mod identity;
mod llama2c;
mod metadata;
mod sentencepiece;
mod special;
mod split;
mod vocabulary;

use bpe::BytePairEncoder;
use special::{Fragment, SpecialMatcher};
use split::PreTokenizer;
use vocabulary::{TokenKind, Vocabulary};

use crate::ModelError;

/// Whether the text of special tokens (`<|im_start|>`) becomes their ids or stays ordinary text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// The longest special token at each place becomes its id: for rendered chat templates.
    Parse,
    /// No text becomes a control token: for what users and documents say.
    AsText,
}

/// A vocabulary with the rules that cut text into its tokens.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    special: SpecialMatcher,
    ids: SpecialIds,
    flags: Flags,
    /// Sorted.
    end_of_generation: Vec<u32>,
}

enum Algorithm {
    ByteLevel { encoder: Box<BytePairEncoder>, merges: Vec<String>, pre: String },
    SentencePiece,
}

/// Ids that the file names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    eom: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
}

/// What the file says about the ends of a text; `None` where it is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    bos: Option<bool>,
    eos: Option<bool>,
    space_prefix: Option<bool>,
}

/// Everything a file says about a tokenizer, whatever the file.
#[derive(Default)]
struct Parts {
    texts: Vec<String>,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    ids: SpecialIds,
    flags: Flags,
}

fn unsupported_pre_tokenizer(name: &str) -> ModelError {
    ModelError::invalid(
        "tokenizer",
        format!(
            "the pre-tokenizer {name:?} is not supported (supported: gpt-2, starcoder, smollm, qwen2, llama-bpe, default)"
        ),
        "use a model with one of these, or serve this one with llama-server and pass --engine http://HOST:PORT",
    )
}

impl Tokenizer {
    fn byte_level(mut parts: Parts, merges: Vec<String>, pre: String, ignore_merges: bool) -> Result<Self, ModelError> {
        let Some(pre_tokenizer) = PreTokenizer::from_name(&pre) else {
            return Err(unsupported_pre_tokenizer(&pre));
        };
        let end_of_generation = end_of_generation::find(&mut parts);
        let vocabulary = Vocabulary::new(parts.texts, parts.kinds, Vec::new(), true);
        let encoder = BytePairEncoder::new(&vocabulary, &merges, pre_tokenizer, ignore_merges)?;
        let encoder = Box::new(encoder);
        let special = SpecialMatcher::new(&vocabulary);
        let algorithm = Algorithm::ByteLevel { encoder, merges, pre };
        Ok(Self { vocabulary, algorithm, special, ids: parts.ids, flags: parts.flags, end_of_generation })
    }

    fn sentencepiece(mut parts: Parts) -> Self {
        let end_of_generation = end_of_generation::find(&mut parts);
        let vocabulary = Vocabulary::new(parts.texts, parts.kinds, parts.scores, false);
        let special = SpecialMatcher::new(&vocabulary);
        Self {
            vocabulary,
            algorithm: Algorithm::SentencePiece,
            special,
            ids: parts.ids,
            flags: parts.flags,
            end_of_generation,
        }
    }

    /// The ids of `text`, without BOS (see [`Tokenizer::adds_bos`]).
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut after_token = true;
        self.special.partition(text, special, &mut |fragment| match fragment {
            Fragment::Token(id) => {
                ids.push(id);
                after_token = true;
            }
            Fragment::Text(text) => {
                match &self.algorithm {
                    Algorithm::ByteLevel { encoder, .. } => encoder.encode(text, &mut ids),
                    Algorithm::SentencePiece => {
                        let space_in_front = after_token && self.adds_space_prefix();
                        sentencepiece::encode(&self.vocabulary, text, space_in_front, self.ids.unknown, &mut ids);
                    }
                }
                after_token = false;
            }
        });
        ids
    }

    /// The text of `ids`: control, unknown and unused tokens are skipped, bytes that are not UTF-8 become U+FFFD, and the space
    /// that `SentencePiece` puts in front of a text is taken away again.
    pub fn decode(&self, ids: &[u32]) -> String {
        let shown = |id: &&u32| {
            !matches!(self.vocabulary.kind(**id), TokenKind::Control | TokenKind::Unknown | TokenKind::Unused)
        };
        let bytes: Vec<u8> = ids.iter().filter(shown).flat_map(|&id| self.vocabulary.bytes(id)).copied().collect();
        let bytes = match self.algorithm {
            Algorithm::SentencePiece if self.adds_space_prefix() => bytes.strip_prefix(b" ").unwrap_or(&bytes),
            _ => &bytes,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The bytes that a token stands for: part of a character, a word with its space, the text of a special token. Empty for an
    /// id beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// The token as the vocabulary writes it (`Ġthe`, `▁the`, `<0x0A>`); empty for an id beyond the vocabulary.
    pub fn token_text(&self, id: u32) -> &str {
        self.vocabulary.text(id)
    }

    /// The id of a token by the text that the vocabulary writes.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text)
    }

    /// Whether a token is a control token or the unknown token, which no text of a user becomes.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), TokenKind::Control | TokenKind::Unknown)
    }

    /// How many ids there are.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token at the beginning of a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.ids.bos
    }

    /// The token at the end of a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.ids.eos
    }

    /// The token that fills short rows of a batch.
    pub fn padding(&self) -> Option<u32> {
        self.ids.padding
    }

    /// Whether a sequence starts with BOS: what the file says, else what its kind does.
    pub fn adds_bos(&self) -> bool {
        let by_kind = match &self.algorithm {
            Algorithm::SentencePiece => true,
            Algorithm::ByteLevel { pre, .. } => split::starts_with_bos(pre),
        };
        self.ids.bos.is_some() && self.flags.bos.unwrap_or(by_kind)
    }

    /// Whether generation ends at this token: end of sequence, of turn, of message, and tokens known by their text.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }

    /// All tokens at which generation ends, in order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.end_of_generation
    }

    fn adds_space_prefix(&self) -> bool {
        self.flags.space_prefix.unwrap_or(true)
    }
}
