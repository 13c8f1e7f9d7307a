//! `pipeline model show`: metadata, a conversation through the template, the tokens of a text.

use super::Session;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::Result;
use espalier_model::{Message, Model, ModelError, SpecialTokens};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is shown besides the metadata.
#[derive(Debug)]
pub struct Parts {
    /// Every tensor.
    pub tensors: bool,
    /// The check conversation.
    pub template: bool,
    /// A text to be cut into tokens.
    pub tokens: Option<String>,
}

/// `pipeline model show`.
pub fn run(reference: &str, parts: &Parts, session: Session<'_>) -> Result<Status> {
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let (mut text, mut result) = metadata(&model);
    text = format!("{}\n  sha256        {}\n{text}", model.config().name, found.sha256);
    if let Some(license) = &found.license {
        let _ = writeln!(text, "  licence       {license}");
    }
    if parts.tensors {
        for tensor in model.tensors() {
            let _ = writeln!(text, "  {:40} {:6} {:?}", tensor.name, tensor.block_type.name(), tensor.dimensions);
        }
    }
    if parts.template {
        let conversation = conversation(&model)?;
        text += &conversation.text(&model);
        result["template"] = json!({"text": conversation.rendered, "system_turn": conversation.system_turn});
    }
    if let Some(asked) = &parts.tokens {
        let (shown, ids) = tokens(&model, asked);
        text += &shown;
        result["tokens"] = ids;
    }
    session.reporter.line(text.trim_end());
    let place = json!({"path": found.path, "sha256": found.sha256, "license": found.license});
    if let (Value::Object(result), Value::Object(mut place)) = (&mut result, place) {
        place.append(result);
        *result = place;
    }
    session.reporter.result(result);
    Ok(Status::Done)
}

fn metadata(model: &Model) -> (String, Value) {
    let config = model.config();
    let mut types: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut parameters = 0_u64;
    for tensor in model.tensors() {
        let count = tensor.dimensions.iter().map(|dimension| *dimension as u64).product::<u64>();
        parameters += count;
        let entry = types.entry(tensor.block_type.name()).or_default();
        entry.0 += 1;
        entry.1 += count;
    }
    let mut text = format!(
        "  architecture  {:?}, {} layers of {}, {} heads over {} key-value heads of {}\n  feed forward  {}\n  context       {} tokens\n  vocabulary    {}{}\n  parameters    {:.1} M\n  chat template {}\n",
        config.architecture,
        config.layers,
        config.hidden,
        config.heads,
        config.kv_heads,
        config.head_dim,
        config.feed_forward,
        config.context,
        config.vocabulary,
        if config.tied_head { ", tied head" } else { "" },
        parameters as f64 / 1e6,
        if model.chat_template().is_builtin() { "none (a plain one is used)" } else { "its own" },
    );
    for (name, (count, elements)) in &types {
        let _ = writeln!(text, "  {name:13} {count} tensors, {:.1} M parameters", *elements as f64 / 1e6);
    }
    let result = json!({
        "name": config.name, "layers": config.layers, "hidden": config.hidden, "heads": config.heads,
        "kv_heads": config.kv_heads, "vocabulary": config.vocabulary, "context": config.context, "parameters": parameters,
    });
    (text, result)
}

/// A conversation that a template of a chat model must be able to write.
pub struct Conversation {
    rendered: String,
    /// Whether the template takes a system turn.
    system_turn: bool,
}

/// Renders two questions and an answer, after a system turn where the template takes one.
pub fn conversation(model: &Model) -> Result<Conversation, ModelError> {
    let turns = [
        Message::new("system", "You are brief."),
        Message::new("user", "Name a colour."),
        Message::new("assistant", "Blue."),
        Message::new("user", "Another."),
    ];
    let template = model.chat_template();
    match template.render(&turns, true) {
        Ok(rendered) => Ok(Conversation { rendered, system_turn: true }),
        Err(_) => Ok(Conversation { rendered: template.render(&turns[1..], true)?, system_turn: false }),
    }
}

impl Conversation {
    fn text(&self, model: &Model) -> String {
        let mut text = "\nA conversation as the model is asked to go on with it\n".to_owned();
        for line in self.rendered.lines() {
            let _ = writeln!(text, "  | {line}");
        }
        let tokenizer = model.tokenizer();
        let ids = tokenizer.encode(&self.rendered, SpecialTokens::Parse);
        let special = ids.iter().filter(|id| tokenizer.is_special(**id)).count();
        let _ = writeln!(text, "  {} tokens, {special} of them special", ids.len());
        if !self.system_turn {
            text += "  the template refuses a system turn: the conversation stands here without one\n";
        }
        text
    }
}

/// The tokens of a text with their ids, and whether they give the text again.
fn tokens(model: &Model, asked: &str) -> (String, Value) {
    let tokenizer = model.tokenizer();
    let ids = tokenizer.encode(asked, SpecialTokens::Parse);
    let mut text = format!("\n{} tokens, special ones read as such\n", ids.len());
    for id in &ids {
        let special = if tokenizer.is_special(*id) { "  special" } else { "" };
        let _ = writeln!(text, "  {id:>7}  {:?}{special}", String::from_utf8_lossy(tokenizer.token_bytes(*id)));
    }
    let plain = tokenizer.encode(asked, SpecialTokens::AsText);
    let same = tokenizer.decode(&plain) == asked;
    let verdict = if same { "the same text" } else { "another text: this tokenizer does not keep it" };
    let _ = writeln!(text, "  decoded, they give {verdict}");
    let id = |id: Option<u32>| id.map_or("none".into(), |id| format!("{id} {:?}", tokenizer.token_text(id)));
    let ends: Vec<String> = tokenizer.end_of_generation().iter().map(|end| id(Some(*end))).collect();
    let _ = writeln!(text, "  begin {}; an answer ends at {}", id(tokenizer.bos()), ends.join(", "));
    (text, json!({"ids": ids, "round_trip": same}))
}
