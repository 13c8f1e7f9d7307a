//! `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` that give the ids of a tokenizer again.

use serde_json::{Map, Value, json};

use super::{pre_tokenizers, sentencepiece};
use crate::ModelError;
use crate::tokenizer::vocabulary::TokenKind;
use crate::tokenizer::{Algorithm, Tokenizer, unsupported_pre_tokenizer};

impl Tokenizer {
    /// `tokenizer.json`: what the `tokenizers` library needs to give the same ids as [`Tokenizer::encode`] with special tokens
    /// parsed, and BOS where [`Tokenizer::adds_bos`] says so.
    ///
    /// Every token stands in the vocabulary, also the special ones, so that their ids are those of the embedding; ids that
    /// only fill up the embedding stand nowhere. There is no normalisation to NFC, as there is none here.
    ///
    /// # Errors
    ///
    /// Merges to texts that are no tokens, which the library refuses.
    pub fn to_tokenizer_json(&self) -> Result<Value, ModelError> {
        let mut vocabulary = Map::new();
        for (id, text) in self.vocabulary.texts().iter().enumerate() {
            if !self.only_fills(id as u32) && !vocabulary.contains_key(text) {
                vocabulary.insert(text.clone(), json!(id));
            }
        }
        let (normalizer, pre_tokenizer, decoder, mut post_processors, model) = match &self.algorithm {
            Algorithm::ByteLevel { merges, pre, .. } => {
                let byte_level =
                    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
                let pre_tokenizer = pre_tokenizers::json(pre).ok_or_else(|| unsupported_pre_tokenizer(pre))?;
                let model = json!({
                    "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                    "ignore_merges": crate::tokenizer::split::merges_whole_pieces(pre),
                    "vocab": null, "merges": pairs(merges, &vocabulary)?,
                });
                (Value::Null, pre_tokenizer, byte_level.clone(), vec![byte_level], model)
            }
            Algorithm::SentencePiece => {
                let prefix = self.adds_space_prefix();
                let model = json!({
                    "type": "BPE", "dropout": null, "unk_token": self.ids.unknown.map(|id| self.token_text(id)),
                    "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                    "byte_fallback": true, "ignore_merges": false,
                    "vocab": null, "merges": sentencepiece::merges(&self.vocabulary),
                });
                let (normalizer, decoder) = (sentencepiece::normalizer(prefix), sentencepiece::decoder(prefix));
                (normalizer, Value::Null, decoder, Vec::new(), model)
            }
        };
        post_processors.extend(self.ends_of_a_text());
        let mut model = model;
        model["vocab"] = Value::Object(vocabulary);
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": match post_processors.as_slice() {
                [] => Value::Null,
                [one] => one.clone(),
                several => json!({"type": "Sequence", "processors": several}),
            },
            "decoder": decoder, "model": model,
        }))
    }

    /// `tokenizer_config.json`, for the plain class of transformers that takes `tokenizer.json` as it stands.
    pub fn to_tokenizer_config(&self, context: usize, chat_template: &str) -> Value {
        let mut config = Map::new();
        config.insert("add_bos_token".to_owned(), self.adds_bos().into());
        config.insert("add_eos_token".to_owned(), (self.flags.eos == Some(true)).into());
        let added: Map<String, Value> =
            self.added_tokens().into_iter().map(|mut token| (take_id(&mut token), token)).collect();
        config.insert("added_tokens_decoder".to_owned(), Value::Object(added));
        config.extend(self.named_tokens());
        config.insert("chat_template".to_owned(), chat_template.into());
        config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
        config.insert("model_max_length".to_owned(), context.into());
        config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
        Value::Object(config)
    }

    /// `special_tokens_map.json`.
    pub fn to_special_tokens_map(&self) -> Value {
        Value::Object(self.named_tokens())
    }

    fn named_tokens(&self) -> Map<String, Value> {
        let ids = [
            ("bos_token", self.ids.bos),
            ("eos_token", self.ids.eos),
            ("pad_token", self.ids.padding),
            ("unk_token", self.ids.unknown),
        ];
        let named = ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), self.token_text(id?).into())));
        named.collect()
    }

    /// A row that a converter filled the embedding up with: `[PAD151936]`.
    fn only_fills(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == TokenKind::Unused && self.token_text(id) == format!("[PAD{id}]")
    }

    /// The tokens that are matched as whole texts, in the order of their ids.
    fn added_tokens(&self) -> Vec<Value> {
        let token = |(id, (text, kind)): (usize, (&String, &TokenKind))| {
            let special = match kind {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
            };
            (!text.is_empty()).then(|| {
                json!({
                    "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special,
                })
            })
        };
        self.vocabulary.texts().iter().zip(self.vocabulary.kinds()).enumerate().filter_map(token).collect()
    }

    /// The post-processor that puts BOS in front of a text and EOS behind it, where the tokenizer does.
    fn ends_of_a_text(&self) -> Option<Value> {
        let bos = self.ids.bos.filter(|_| self.adds_bos());
        let eos = self.ids.eos.filter(|_| self.flags.eos == Some(true));
        if bos.is_none() && eos.is_none() {
            return None;
        }
        let special =
            |id: u32, sequence: u32| json!({"SpecialToken": {"id": self.token_text(id), "type_id": sequence}});
        let text = |name: &str, sequence: u32| {
            let around = [bos.map(|id| special(id, sequence)), eos.map(|id| special(id, sequence))];
            let [before, after] = around;
            before
                .into_iter()
                .chain([json!({"Sequence": {"id": name, "type_id": sequence}})])
                .chain(after)
                .collect::<Vec<_>>()
        };
        let mut tokens = Map::new();
        for id in [bos, eos].into_iter().flatten() {
            let name = self.token_text(id);
            tokens.insert(name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]}));
        }
        let (single, pair) = (text("A", 0), [text("A", 0), text("B", 1)].concat());
        Some(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}))
    }
}

/// Merges as pairs.
fn pairs(merges: &[String], vocabulary: &Map<String, Value>) -> Result<Vec<[String; 2]>, ModelError> {
    let pair = |merge: &String| {
        // The encoder has refused merges without two parts.
        let at = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map_or(merge.len(), |(at, _)| at);
        let (left, right) = (&merge[..at], merge.get(at + 1..).unwrap_or_default());
        let whole = format!("{left}{right}");
        for text in [left, right, &whole] {
            if !vocabulary.contains_key(text) {
                return Err(ModelError::invalid(
                    "tokenizer",
                    format!("the merge {merge:?} has a part or a result, {text:?}, that is no token"),
                    "write a GGUF file instead: --out NAME.gguf",
                ));
            }
        }
        Ok([left.to_owned(), right.to_owned()])
    };
    merges.iter().map(pair).collect()
}

/// The key of a token in `added_tokens_decoder`, whose value does not repeat it.
fn take_id(token: &mut Value) -> String {
    token.as_object_mut().and_then(|token| token.shift_remove("id")).unwrap_or_default().to_string()
}
