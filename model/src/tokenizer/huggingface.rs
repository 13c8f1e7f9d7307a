//! Byte-level tokenizers in the form of Hugging Face: `tokenizer.json` and `tokenizer_config.json`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::vocabulary::TokenKind;
use super::{Parts, Tokenizer, split, unsupported_pre_tokenizer};
use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;

/// How `tokenizer.json` writes the pattern of Qwen 2.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// That of Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// That of GPT-2, which is also what `ByteLevel` does by itself.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

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
    /// Byte-level byte-pair encoding only: `SentencePiece` models in this form are refused, as are patterns that no pre-tokenizer
    /// here equals. Normalisation to NFC is left out, as in llama.cpp.
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
        if kind != "BPE" || json.model.byte_fallback {
            let found = if kind == "BPE" { "a SentencePiece model" } else { kind };
            return Err(ModelError::invalid(
                "tokenizer.json",
                format!("the tokenizer is {found}, but only byte-level BPE is supported in this form"),
                "convert the model to GGUF and use that file",
            ));
        }
        check_normalizer(&json.normalizer)?;
        let pre = recognise(&json.pre_tokenizer)?;
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

/// The `tokenizer.ggml.pre` that cuts as this `pre_tokenizer` does.
fn recognise(pre_tokenizer: &Value) -> Result<&'static str, ModelError> {
    let steps = match pre_tokenizer.get("pretokenizers").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(pre_tokenizer),
    };
    let flag = |step: &Value, name: &str, default| step.get(name).and_then(Value::as_bool).unwrap_or(default);
    let byte_level = |step: &Value| kind(step) == "ByteLevel" && !flag(step, "add_prefix_space", true);
    let pattern =
        |step: &Value| step.get("pattern").and_then(|pattern| pattern.get("Regex")?.as_str()).map(str::to_owned);
    let isolated =
        |step: &Value| step.get("behavior").and_then(Value::as_str) == Some("Isolated") && !flag(step, "invert", false);
    let found = match steps {
        [last] if byte_level(last) && flag(last, "use_regex", true) => Some("gpt-2"),
        [digits, last]
            if kind(digits) == "Digits"
                && flag(digits, "individual_digits", false)
                && byte_level(last)
                && flag(last, "use_regex", true) =>
        {
            Some("smollm")
        }
        [split, last]
            if kind(split) == "Split" && isolated(split) && byte_level(last) && !flag(last, "use_regex", true) =>
        {
            match pattern(split).as_deref() {
                Some(QWEN2) => Some("qwen2"),
                Some(LLAMA3) => Some("llama-bpe"),
                Some(GPT2) => Some("gpt-2"),
                _ => None,
            }
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<String> =
            steps.iter().map(|step| pattern(step).unwrap_or_else(|| kind(step).to_owned())).collect();
        unsupported_pre_tokenizer(&names.join(" then "))
    })
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

    fn split(pattern: &str) -> Value {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]})
    }

    #[test]
    fn tokens_merges_and_special_ids() {
        let json = tokenizer_json(&split(QWEN2)).to_string();
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
    fn known_patterns_are_recognised_and_others_named() {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        let digits =
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level]});
        assert_eq!(recognise(&byte_level).unwrap(), "gpt-2");
        assert_eq!(recognise(&digits).unwrap(), "smollm");
        assert_eq!(recognise(&split(QWEN2)).unwrap(), "qwen2");
        assert_eq!(recognise(&split(LLAMA3)).unwrap(), "llama-bpe");
        assert!(recognise(&split("[a-z]+")).unwrap_err().to_string().contains("[a-z]+"));
        assert!(recognise(&Value::Null).is_err());
    }

    #[test]
    fn what_is_not_byte_level_is_refused() {
        let mut json = tokenizer_json(&split(QWEN2));
        json["model"]["byte_fallback"] = true.into();
        let error = Tokenizer::from_tokenizer_json(&json.to_string(), None).err().unwrap();
        assert!(error.to_string().contains("a SentencePiece model"), "{error}");
        let mut json = tokenizer_json(&split(QWEN2));
        json["normalizer"] = json!({"type": "Lowercase"});
        assert!(Tokenizer::from_tokenizer_json(&json.to_string(), None).is_err());
        let mut json = tokenizer_json(&split(QWEN2));
        json["model"]["vocab"]["x"] = 4_000_000_000_u64.into();
        assert!(Tokenizer::from_tokenizer_json(&json.to_string(), None).is_err());
        assert!(Tokenizer::from_tokenizer_json("{", None).is_err());
    }
}
