//! Tokenizers in the form of Hugging Face: `tokenizer.json` and `tokenizer_config.json`.

mod pre_tokenizers;
mod sentencepiece;
mod write;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::vocabulary::TokenKind;
use super::{Parts, Tokenizer, split};
use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    unk_token: Option<String>,
}

/// Older files write a merge as one text, newer ones as a pair.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

impl Tokenizer {
    /// From the texts of `tokenizer.json` and, where there is one, `tokenizer_config.json` (for the ids of BOS and EOS).
    ///
    /// Byte-level byte-pair encoding, and `SentencePiece` as merges with bytes to fall back to. Other models are refused, as are
    /// patterns that no pre-tokenizer here equals. Normalisation to NFC is left out, as in llama.cpp.
    pub fn from_tokenizer_json(tokenizer: &str, config: Option<&str>) -> Result<Self, ModelError> {
        Self::from_tokenizer_json_padded(tokenizer, config, 0)
    }

    /// The same for a model whose embedding has `vocabulary` rows: missing ids become unused tokens.
    pub fn from_tokenizer_json_padded(
        tokenizer: &str,
        config: Option<&str>,
        vocabulary: usize,
    ) -> Result<Self, ModelError> {
        let json: TokenizerJson =
            serde_json::from_str(tokenizer).map_err(|error| damaged("tokenizer.json", error.to_string()))?;
        let config: Map<String, Value> = match config {
            Some(text) => {
                serde_json::from_str(text).map_err(|error| damaged("tokenizer_config.json", error.to_string()))?
            }
            None => Map::new(),
        };
        let kind = json.model.kind.as_deref().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(ModelError::invalid(
                "tokenizer.json",
                format!("the tokenizer is {kind}, but only byte-pair encoding is supported in this form"),
                "convert the model to GGUF and use that file",
            ));
        }
        let mut parts = Parts::default();
        parts.read_tokens(&json.model.vocab, &json.added_tokens, vocabulary)?;
        let id = |name: &str| -> Option<u32> {
            let token = config.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            parts.texts.iter().position(|known| known == text).map(|id| id as u32)
        };
        parts.ids.bos = id("bos_token");
        parts.ids.eos = id("eos_token");
        parts.ids.unknown = id("unk_token");
        parts.ids.padding = id("pad_token");
        let bos_text = parts.ids.bos.map(|id| parts.texts[id as usize].as_str());
        let by_template = bos_text.is_some_and(|bos| template_starts_with(&json.post_processor, bos));
        parts.flags.bos = Some(config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(by_template));
        let merges = json.model.merges.into_iter().map(|merge| match merge {
            Merge::Text(text) => text,
            Merge::Pair(left, right) => format!("{left} {right}"),
        });
        if json.model.byte_fallback {
            parts.flags.space_prefix = Some(sentencepiece::adds_space_prefix(&json.normalizer, &json.pre_tokenizer)?);
            sentencepiece::complete(&mut parts, merges, json.model.unk_token.as_deref());
            return Ok(Self::sentencepiece(parts));
        }
        check_normalizer(&json.normalizer)?;
        let pre = pre_tokenizers::recognise(&json.pre_tokenizer)?;
        let ignore_merges = json.model.ignore_merges.unwrap_or_else(|| split::merges_whole_pieces(pre));
        Self::byte_level(parts, merges.collect(), pre.to_owned(), ignore_merges)
    }
}

impl Parts {
    fn read_tokens(&mut self, vocab: &Value, added: &[AddedToken], at_least: usize) -> Result<(), ModelError> {
        let Some(vocab) = vocab.as_object() else {
            return Err(damaged("tokenizer.json", "`model.vocab` is not an object of token: id"));
        };
        let mut tokens: Vec<(u32, &str, TokenKind)> = Vec::with_capacity(vocab.len() + added.len());
        for (text, id) in vocab {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let Some(id) = id else {
                return Err(damaged("tokenizer.json", format!("the token {text:?} has no id")));
            };
            tokens.push((id, text, TokenKind::Normal));
        }
        for token in added {
            let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
            tokens.push((token.id, &token.content, kind));
        }
        let length = tokens.iter().map(|&(id, ..)| id as usize + 1).max().unwrap_or(0).max(at_least);
        // Holes exist (padded embeddings), but not more of them than tokens: such an id is an error, not a request for memory.
        if length > 2 * tokens.len() + 100_000 {
            return Err(damaged("tokenizer.json", format!("{} tokens have ids up to {}", tokens.len(), length - 1)));
        }
        self.texts = (0..length).map(|id| format!("[PAD{id}]")).collect();
        self.kinds = vec![TokenKind::Unused; length];
        for (id, text, kind) in tokens {
            text.clone_into(&mut self.texts[id as usize]);
            self.kinds[id as usize] = kind;
        }
        Ok(())
    }
}

fn damaged(file: &str, problem: impl Into<String>) -> ModelError {
    ModelError::invalid(file, problem, DOWNLOAD_AGAIN)
}

fn kind(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or("")
}

fn check_normalizer(normalizer: &Value) -> Result<(), ModelError> {
    let steps = normalizer.get("normalizers").and_then(Value::as_array);
    let known = match steps {
        Some(steps) => steps.iter().all(|step| kind(step) == "NFC"),
        None => normalizer.is_null() || kind(normalizer) == "NFC",
    };
    if known {
        return Ok(());
    }
    Err(ModelError::invalid(
        "tokenizer.json",
        format!("the normalizer {:?} is not supported (supported: none, NFC)", kind(normalizer)),
        "convert the model to GGUF and use that file",
    ))
}

/// Whether the template for one text begins with `bos`.
fn template_starts_with(post_processor: &Value, bos: &str) -> bool {
    let steps = match post_processor.get("processors").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(post_processor),
    };
    steps.iter().any(|step| {
        let first = step.get("single").and_then(|single| single.get(0)?.get("SpecialToken")?.get("id")?.as_str());
        kind(step) == "TemplateProcessing" && first == Some(bos)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokenizer::SpecialTokens;
    use crate::tokenizer::byte_characters::byte_characters;

    fn tokenizer_json(pre_tokenizer: &Value) -> Value {
        let mut vocab: Map<String, Value> =
            byte_characters().iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
        vocab.insert("Ġa".into(), 256.into());
        json!({
            "added_tokens": [
                {"id": 258, "content": "<|im_end|>", "special": true},
                {"id": 259, "content": "<tool>", "special": false},
            ],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": pre_tokenizer,
            "post_processor": {"type": "Sequence", "processors": [
                {"type": "ByteLevel"},
                {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}, {"Sequence": {"id": "A"}}]},
            ]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [["Ġ", "a"]]},
        })
    }

    #[test]
    fn tokens_merges_and_special_ids() {
        let json = tokenizer_json(&pre_tokenizers::json("qwen2").unwrap()).to_string();
        let config = r#"{"bos_token": {"content": "<|im_end|>"}, "eos_token": "<|im_end|>", "pad_token": null}"#;
        let tokenizer = Tokenizer::from_tokenizer_json_padded(&json, Some(config), 300).unwrap();
        assert_eq!(tokenizer.vocabulary(), 300);
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.padding()), (Some(258), Some(258), None));
        assert!(tokenizer.adds_bos() && tokenizer.is_special(258) && !tokenizer.is_special(259));
        assert_eq!(tokenizer.encode(" a<tool><|im_end|>", SpecialTokens::Parse), [256, 259, 258]);
        assert_eq!(tokenizer.decode(&[256, 257, 259, 258]), " a<tool>");
        assert_eq!(tokenizer.token_text(257), "[PAD257]");
        let again = Tokenizer::from_gguf_metadata(&tokenizer.to_gguf_metadata().into_iter().collect()).unwrap();
        assert_eq!(again.to_gguf_metadata(), tokenizer.to_gguf_metadata());
    }

    #[test]
    fn what_is_not_byte_pair_encoding_is_refused() {
        let mut json = tokenizer_json(&pre_tokenizers::json("qwen2").unwrap());
        json["model"]["type"] = "Unigram".into();
        let error = Tokenizer::from_tokenizer_json(&json.to_string(), None).err().unwrap();
        assert!(error.to_string().contains("Unigram"), "{error}");
        let mut json = tokenizer_json(&pre_tokenizers::json("qwen2").unwrap());
        json["normalizer"] = json!({"type": "Lowercase"});
        assert!(Tokenizer::from_tokenizer_json(&json.to_string(), None).is_err());
        let mut json = tokenizer_json(&pre_tokenizers::json("qwen2").unwrap());
        json["model"]["vocab"]["x"] = 4_000_000_000_u64.into();
        assert!(Tokenizer::from_tokenizer_json(&json.to_string(), None).is_err());
        assert!(Tokenizer::from_tokenizer_json("{", None).is_err());
    }
}
