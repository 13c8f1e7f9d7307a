//! The `tokenizer.ggml.*` keys of GGUF files.

use super::vocabulary::TokenKind;
use super::{Algorithm, Flags, Parts, SpecialIds, Tokenizer, split};
use crate::ModelError;
use crate::gguf::{Metadata, Value};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";

impl Tokenizer {
    /// From `tokenizer.ggml.*`: the models `gpt2` (byte-level byte-pair encoding) and `llama` (`SentencePiece`).
    ///
    /// Special ids beyond the vocabulary count as absent, as in llama.cpp. Other models and unknown pre-tokenizers are refused.
    pub fn from_gguf_metadata(metadata: &Metadata) -> Result<Self, ModelError> {
        let model = metadata.require_str(MODEL)?;
        let texts = metadata.require_strings(TOKENS)?.to_vec();
        let kinds = match metadata.get_i32_array(KINDS)? {
            Some(numbers) => {
                expect_length(KINDS, numbers.len(), texts.len())?;
                numbers.iter().map(|&number| TokenKind::from_number(number)).collect()
            }
            None => vec![TokenKind::Normal; texts.len()],
        };
        let id = |name: &str| -> Result<Option<u32>, ModelError> {
            let id = metadata.get_u32(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok(id.filter(|&id| (id as usize) < texts.len()))
        };
        let ids = SpecialIds {
            bos: id("bos")?,
            eos: id("eos")?,
            eot: id("eot")?,
            eom: id("eom")?,
            unknown: id("unknown")?,
            padding: id("padding")?,
        };
        let flags = Flags {
            bos: metadata.get_bool(ADD_BOS)?,
            eos: metadata.get_bool(ADD_EOS)?,
            space_prefix: metadata.get_bool(ADD_SPACE)?,
        };
        let mut parts = Parts { texts, kinds, scores: Vec::new(), ids, flags };
        match model {
            "gpt2" => {
                let pre = metadata.get_str(PRE)?.unwrap_or("default").to_owned();
                let merges = metadata.require_strings(MERGES)?.to_vec();
                let ignore_merges = split::merges_whole_pieces(&pre);
                Self::byte_level(parts, merges, pre, ignore_merges)
            }
            "llama" => {
                let Some(scores) = metadata.get_f32_array(SCORES)? else {
                    return Err(ModelError::MissingKey { key: SCORES.to_owned() });
                };
                expect_length(SCORES, scores.len(), parts.texts.len())?;
                parts.scores = scores.into_owned();
                Ok(Self::sentencepiece(parts))
            }
            other => Err(ModelError::invalid(
                MODEL,
                format!("the tokenizer model {other:?} is not supported (supported: gpt2, llama)"),
                "use a model with one of these, or serve this one with llama-server and pass --engine http://HOST:PORT",
            )),
        }
    }

    /// The `tokenizer.ggml.*` keys from which [`Tokenizer::from_gguf_metadata`] and llama.cpp make this tokenizer again.
    pub fn to_gguf_metadata(&self) -> Vec<(String, Value)> {
        let (model, pre) = match &self.algorithm {
            Algorithm::ByteLevel { pre, .. } => ("gpt2", pre.as_str()),
            Algorithm::SentencePiece => ("llama", "default"),
        };
        let kinds: Vec<i32> = self.vocabulary.kinds().iter().map(|&kind| kind as i32).collect();
        let mut entries: Vec<(String, Value)> = vec![
            (MODEL.to_owned(), model.into()),
            (PRE.to_owned(), pre.into()),
            (TOKENS.to_owned(), self.vocabulary.texts().to_vec().into()),
        ];
        if let Algorithm::SentencePiece = self.algorithm {
            entries.push((SCORES.to_owned(), self.vocabulary.scores().to_vec().into()));
        }
        entries.push((KINDS.to_owned(), kinds.into()));
        if let Algorithm::ByteLevel { merges, .. } = &self.algorithm {
            entries.push((MERGES.to_owned(), merges.clone().into()));
        }
        let ids = [
            ("bos", self.ids.bos),
            ("eos", self.ids.eos),
            ("eot", self.ids.eot),
            ("eom", self.ids.eom),
            ("unknown", self.ids.unknown),
            ("padding", self.ids.padding),
        ];
        for (name, id) in ids {
            entries.extend(id.map(|id| (format!("tokenizer.ggml.{name}_token_id"), id.into())));
        }
        let flags = [(ADD_BOS, self.flags.bos), (ADD_EOS, self.flags.eos), (ADD_SPACE, self.flags.space_prefix)];
        for (key, flag) in flags {
            entries.extend(flag.map(|flag| (key.to_owned(), flag.into())));
        }
        entries
    }
}

fn expect_length(key: &str, found: usize, tokens: usize) -> Result<(), ModelError> {
    if found == tokens {
        return Ok(());
    }
    Err(ModelError::invalid(key, format!("it has {found} entries for {tokens} tokens"), crate::error::DOWNLOAD_AGAIN))
}
