//! `/props`: what clients of llama-server read of a server before they ask, in its words.

use serde_json::{Value, json};

use super::Served;
use super::model::Running;
use crate::request::Sampling;

/// What is served, how many requests are answered at once, and what holds where a request says nothing.
pub(super) fn of(served: &Served) -> Value {
    let options = &served.options;
    let sampling = Sampling::at_temperature(1.0);
    let params = json!({"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
        "min_p": sampling.min_p, "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": options.max_tokens, "n_predict": options.max_tokens});
    let mut props = json!({
        "default_generation_settings": {"params": params, "n_ctx": served.running.context()},
        "total_slots": slots(served),
        "model_alias": options.model,
        "model_path": options.other_names.first().unwrap_or(&options.model),
        "modalities": {"vision": false, "audio": false},
        "build_info": concat!("espalier ", env!("CARGO_PKG_VERSION")),
    });
    if let Running::Writer(writer) = &served.running {
        let tokenizer = writer.engine.tokenizer();
        let text = |token: Option<u32>| token.map(|token| tokenizer.token_text(token));
        props["chat_template"] = writer.engine.chat_template().source().into();
        props["bos_token"] = text(tokenizer.bos()).into();
        props["eos_token"] = text(tokenizer.eos()).into();
    }
    props
}

/// Requests that are worked on at once. More of them wait without harm, but only so many may come together.
fn slots(served: &Served) -> usize {
    match &served.running {
        Running::Writer(writer) => writer.engine.max_sequences.min(served.options.max_waiting),
        Running::Encoder(_) => 1,
    }
}
