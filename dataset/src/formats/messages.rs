//! `{"messages": [{"role", "content"}, ...]}`; a message may say `train` (also `training`) or `weight`, and a row `unmask`, by
//! which `InstructLab` learns what the user says too.

use serde_json::{Map, Value};

use super::example::{Content, WeightedTurn};
use super::{kind_of, weight_of};

pub(super) fn read(object: &Map<String, Value>) -> Result<Content, String> {
    refuse_tools(object)?;
    let mut turns = turns(object, "messages")?;
    match object.get("unmask") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) => {
            for turn in turns.iter_mut().filter(|turn| turn.role != "system" && turn.weight.is_none()) {
                turn.weight = Some(1.0);
            }
        }
        Some(other) => return Err(format!("`unmask` must be true or false, this is {}", kind_of(other))),
    }
    Ok(Content::Conversation(turns))
}

/// The turns under `key`.
pub(super) fn turns(object: &Map<String, Value>, key: &str) -> Result<Vec<WeightedTurn>, String> {
    let list = match object.get(key) {
        Some(Value::Array(list)) => list,
        other => {
            let found = other.map_or("missing", kind_of);
            return Err(format!("`{key}` must be a list of {{\"role\": ..., \"content\": ...}}, this is {found}"));
        }
    };
    if list.is_empty() {
        return Err(format!("`{key}` is empty; remove the row"));
    }
    list.iter().enumerate().map(|(at, message)| turn(message).map_err(|what| format!("{key}[{at}]: {what}"))).collect()
}

fn turn(message: &Value) -> Result<WeightedTurn, String> {
    let message = message.as_object().ok_or_else(|| format!("a message is an object, this is {}", kind_of(message)))?;
    for key in ["tool_calls", "function_call"] {
        if present(message.get(key)) {
            return Err(format!("`{key}`: calls of tools cannot be learned yet; remove the row"));
        }
    }
    for key in ["reasoning_content", "reasoning", "thinking"] {
        if present(message.get(key)) {
            return Err(format!(
                "`{key}` would be left out; write it into `content` as the model is to write it, or remove it"
            ));
        }
    }
    let role = match message.get("role") {
        Some(Value::String(role)) => role_of(role)?,
        _ => return Err("a message needs a `role`: system, user or assistant".to_owned()),
    };
    Ok(WeightedTurn { role: role.to_owned(), content: content(message)?, weight: turn_weight(message)? })
}

/// Whether a value says anything.
fn present(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// Refuses a row that offers tools.
pub(super) fn refuse_tools(object: &Map<String, Value>) -> Result<(), String> {
    match ["tools", "functions"].into_iter().find(|key| present(object.get(*key))) {
        Some(key) => Err(format!("`{key}`: rows with tools cannot be learned yet; remove the row, or its tools")),
        None => Ok(()),
    }
}

fn role_of(role: &str) -> Result<&str, String> {
    match role {
        "system" | "user" | "assistant" => Ok(role),
        "tool" | "function" => {
            Err(format!("the role `{role}`: answers of tools cannot be learned yet; remove the row"))
        }
        other => Err(format!("the role `{other}` is not known; roles are system, user and assistant")),
    }
}

/// A text, or a list of parts that are all text.
fn content(message: &Map<String, Value>) -> Result<String, String> {
    match message.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => parts.iter().map(part).collect(),
        other => Err(format!(
            "`content` must be a text or a list of {{\"type\": \"text\", \"text\": ...}}, this is {}",
            other.map_or("missing", kind_of)
        )),
    }
}

fn part(part: &Value) -> Result<&str, String> {
    let text = part.get("text").and_then(Value::as_str);
    match (part.get("type").and_then(Value::as_str), text) {
        (Some("text") | None, Some(text)) => Ok(text),
        (Some("text") | None, None) => Err("a part of `content` has no `text`".to_owned()),
        (Some(other), _) => {
            Err(format!("a part of `content` is `{other}`; only parts of text can be learned: remove the row"))
        }
    }
}

/// `train: false` is 0 whatever `weight` says; `train: true` without a weight is 1.
fn turn_weight(message: &Map<String, Value>) -> Result<Option<f32>, String> {
    let weight = weight_of(message)?;
    for key in ["train", "training"] {
        match message.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Bool(false)) => return Ok(Some(0.0)),
            Some(Value::Bool(true)) => return Ok(Some(weight.unwrap_or(1.0))),
            Some(other) => return Err(format!("`{key}` must be true or false, this is {}", kind_of(other))),
        }
    }
    Ok(weight)
}
