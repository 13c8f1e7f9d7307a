//! What the engine makes of texts, for scripts that compare it: `score_texts MODEL [ADAPTER] < WANTED.json > FOUND.json`.
//!
//! WANTED is `{"texts": [..], "scored": [..], "chats": [[{"role", "content"}, ..], ..]}`. FOUND has the token ids of each of
//! the `texts` (special tokens parsed, BOS where the tokenizer adds it), for each of the `scored` texts its ids and the
//! greatest 32 log-probabilities in f32 at its last 16 positions, and each chat as the template renders it.

use std::error::Error;
use std::io::{self, Read, Write};
use std::path::Path;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Message, Model, SpecialTokens};
use serde_json::{Value, json};

const POSITIONS: usize = 16;
const TOP: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = Model::open(Path::new(arguments.first().ok_or("usage: score_texts MODEL [ADAPTER] < WANTED.json")?))?;
    let adapter = arguments.get(1).map(|path| LoraAdapter::load(Path::new(path), model.config())).transpose()?;
    let mut source = String::new();
    io::stdin().read_to_string(&mut source)?;
    let wanted: Value = serde_json::from_str(&source)?;
    let list = |name: &str| -> Result<Vec<String>, serde_json::Error> { serde_json::from_value(wanted[name].clone()) };

    let tokenizer = model.tokenizer();
    let ids = |text: &String| -> Vec<u32> {
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        bos.into_iter().chain(tokenizer.encode(text, SpecialTokens::Parse)).collect()
    };
    let texts: Vec<Vec<u32>> = list("texts")?.iter().map(ids).collect();
    let chats: Vec<Vec<Message>> = serde_json::from_value(wanted["chats"].clone())?;

    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = NativeEngine::load(&model, adapter.as_ref(), &options)?;
    let chats = chats.iter().map(|chat| engine.chat_template().render(chat, true)).collect::<Result<Vec<_>, _>>()?;
    let mut scored = Vec::new();
    for text in list("scored")? {
        let ids = ids(&text);
        let first = ids.len().saturating_sub(POSITIONS);
        let mut positions = Vec::new();
        engine.logits(&ids, &mut |position, logits| {
            if position >= first {
                positions.push(top(logits));
            }
        })?;
        scored.push(json!({"ids": ids, "first": first, "top": positions}));
    }
    let found = json!({"texts": texts, "scored": scored, "chats": chats});
    io::stdout().write_all(found.to_string().as_bytes())?;
    Ok(())
}

/// The greatest log-probabilities with their ids.
fn top(logits: &[f32]) -> Value {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(TOP);
    let values: Vec<f64> = order.iter().map(|&id| f64::from(logits[id] - highest) - sum.ln()).collect();
    json!({"ids": order, "logprobs": values})
}
