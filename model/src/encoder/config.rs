//! `config.json` of an encoder, and what sentence-transformers writes beside it.

use serde::Deserialize;
use serde_json::Value as Json;

use crate::ModelError;
use crate::huggingface::bad_json;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The first token's: `[CLS]`.
    FirstToken,
    /// The last token's.
    LastToken,
}

/// Shape and constants of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Name of the folder.
    pub name: String,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the residual stream, and of the vectors.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Heads; divides `hidden`.
    pub heads: usize,
    /// Inner width of the feed-forward network.
    pub feed_forward: usize,
    /// Rows of the table of positions.
    pub positions: usize,
    /// Rows of the table of token types, of which the first is used.
    pub types: usize,
    /// Added to the variance in layer normalisation.
    pub norm_epsilon: f32,
    /// The most tokens that a text is read with, its start and end included.
    pub tokens: usize,
    /// How the vector of a text is made.
    pub pooling: Pooling,
    /// Whether that vector is divided by its length.
    pub normalize: bool,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    architectures: Vec<String>,
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

/// Whether a `config.json` is that of an encoder of this family.
pub(super) fn is_encoder(source: &str) -> bool {
    let value: Json = serde_json::from_str(source).unwrap_or_default();
    value["model_type"] == "bert"
}

impl EncoderConfig {
    /// From the texts of `config.json` and, through `beside`, of the files of sentence-transformers.
    pub(super) fn read(name: &str, source: &str, beside: &dyn Fn(&str) -> Option<String>) -> Result<Self, ModelError> {
        let settings: Settings = serde_json::from_str(source).map_err(|error| bad_json(&error))?;
        let refuse = |key: &str, problem: String| {
            Err(ModelError::invalid(key, problem, "use an encoder such as all-MiniLM-L6-v2 or bge-small-en-v1.5"))
        };
        if settings.model_type.as_deref() != Some("bert") {
            let class = settings.architectures.first().cloned().or(settings.model_type).unwrap_or_default();
            return refuse("architectures", format!("{class} is no encoder that is computed here (supported: BERT)"));
        }
        if settings.hidden_act != "gelu" {
            return refuse(
                "hidden_act",
                format!("{:?} is not computed in encoders (supported: gelu)", settings.hidden_act),
            );
        }
        if let Some(kind) = settings.position_embedding_type.filter(|kind| kind != "absolute") {
            return refuse("position_embedding_type", format!("{kind:?} is not computed (supported: absolute)"));
        }
        if settings.is_decoder == Some(true) {
            return refuse("is_decoder", "this is a decoder in the form of BERT".to_owned());
        }
        let json = |name: &str| beside(name).and_then(|text| serde_json::from_str::<Json>(&text).ok());
        let tokens = json("sentence_bert_config.json")
            .and_then(|value| value["max_seq_length"].as_u64())
            .map_or(settings.max_position_embeddings, |most| most as usize)
            .min(settings.max_position_embeddings);
        let (pooling, normalize) = sentence_transformers(&json)?;
        let config = Self {
            name: name.to_owned(),
            vocabulary: settings.vocab_size,
            hidden: settings.hidden_size,
            layers: settings.num_hidden_layers,
            heads: settings.num_attention_heads,
            feed_forward: settings.intermediate_size,
            positions: settings.max_position_embeddings,
            types: settings.type_vocab_size,
            norm_epsilon: settings.layer_norm_eps,
            tokens,
            pooling,
            normalize,
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses numbers that cannot be; afterwards products of two sizes fit `usize`.
    fn check(&self) -> Result<(), ModelError> {
        let sizes = [
            ("vocab_size", self.vocabulary, 1 << 24),
            ("hidden_size", self.hidden, 1 << 16),
            ("num_hidden_layers", self.layers, 1 << 12),
            ("num_attention_heads", self.heads, 1 << 12),
            ("intermediate_size", self.feed_forward, 1 << 18),
            ("max_position_embeddings", self.positions, 1 << 20),
            ("type_vocab_size", self.types, 1 << 10),
            ("max_seq_length", self.tokens.saturating_sub(2), 1 << 20),
        ];
        let impossible =
            |key: &str, problem: String| Err(ModelError::invalid(key, problem, crate::error::DOWNLOAD_AGAIN));
        for (key, value, most) in sizes {
            if !(1..=most).contains(&value) {
                return impossible(key, format!("{value} is outside of what an encoder can have, 1 to {most}"));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return impossible("num_attention_heads", format!("{} does not divide {}", self.heads, self.hidden));
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return impossible("layer_norm_eps", self.norm_epsilon.to_string());
        }
        Ok(())
    }
}

/// Pooling and normalisation as sentence-transformers keeps them; the mean, normalised, where it keeps nothing.
fn sentence_transformers(json: &dyn Fn(&str) -> Option<Json>) -> Result<(Pooling, bool), ModelError> {
    let normalize = json("modules.json").is_none_or(|modules| {
        let kinds = modules.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
        kinds.into_iter().any(|kind| kind.ends_with("Normalize"))
    });
    let Some(settings) = json("1_Pooling/config.json") else { return Ok((Pooling::Mean, normalize)) };
    let is = |key: &str| settings[key] == true;
    let modes = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::FirstToken),
        ("pooling_mode_lasttoken", Pooling::LastToken),
    ];
    let chosen: Vec<Pooling> = modes.iter().filter(|(key, _)| is(key)).map(|(_, pooling)| *pooling).collect();
    match chosen.as_slice() {
        [one] => Ok((*one, normalize)),
        _ => Err(ModelError::invalid(
            "1_Pooling/config.json",
            "it asks for a pooling that is not computed (supported: mean, CLS and last token, one of them)",
            "use a model with one of these",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 100, "hidden_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 24, "max_position_embeddings": 64,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;

    #[test]
    fn what_sentence_transformers_writes_is_honoured() {
        let none = |_: &str| None;
        let plain = EncoderConfig::read("m", CONFIG, &none).unwrap();
        assert_eq!((plain.tokens, plain.pooling, plain.normalize), (64, Pooling::Mean, true));
        let beside = |name: &str| {
            Some(match name {
                "modules.json" => r#"[{"type": "sentence_transformers.models.Pooling"}]"#.to_owned(),
                "1_Pooling/config.json" => r#"{"pooling_mode_cls_token": true}"#.to_owned(),
                "sentence_bert_config.json" => r#"{"max_seq_length": 32}"#.to_owned(),
                _ => return None,
            })
        };
        let stated = EncoderConfig::read("m", CONFIG, &beside).unwrap();
        assert_eq!((stated.tokens, stated.pooling, stated.normalize), (32, Pooling::FirstToken, false));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_its_key() {
        let none = |_: &str| None;
        let edits = [
            ("\"model_type\": \"bert\"", "\"model_type\": \"roberta\"", "supported: BERT"),
            ("\"gelu\"", "\"relu\"", "hidden_act"),
            ("\"hidden_size\": 12", "\"hidden_size\": 13", "num_attention_heads"),
            ("\"vocab_size\": 100", "\"vocab_size\": 0", "vocab_size"),
            ("\"type_vocab_size\": 2", "\"position_embedding_type\": \"relative\", \"type_vocab_size\": 2", "position"),
        ];
        for (from, to, named) in edits {
            let error = EncoderConfig::read("m", &CONFIG.replace(from, to), &none).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
