//! `{"conversations": [{"from", "value"}, ...]}`; files that write `role` and `content` there are read as messages.

use serde_json::{Map, Value};

use super::example::{Content, WeightedTurn};
use super::messages::{refuse_tools, turns};
use super::{kind_of, optional_text, text_of, weight_of};

pub(super) fn read(object: &Map<String, Value>) -> Result<Content, String> {
    refuse_tools(object)?;
    let list = match object.get("conversations") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) => return Err("`conversations` is empty; remove the row".to_owned()),
        other => {
            let found = other.map_or("missing", kind_of);
            return Err(format!(
                "`conversations` must be a list of {{\"from\": ..., \"value\": ...}}, this is {found}"
            ));
        }
    };
    if list[0].get("role").is_some() {
        return Ok(Content::Conversation(turns(object, "conversations")?));
    }
    let mut conversation = Vec::with_capacity(list.len() + 1);
    if let Some(system) = optional_text(object, "system")?.filter(|text| !text.is_empty()) {
        conversation.push(WeightedTurn { role: "system".to_owned(), content: system.to_owned(), weight: None });
    }
    for (at, said) in list.iter().enumerate() {
        conversation.push(turn(said).map_err(|what| format!("conversations[{at}]: {what}"))?);
    }
    Ok(Content::Conversation(conversation))
}

fn turn(said: &Value) -> Result<WeightedTurn, String> {
    let said = said.as_object().ok_or_else(|| format!("a turn is an object, this is {}", kind_of(said)))?;
    let role = match said.get("from") {
        Some(Value::String(from)) => role_of(from)?,
        _ => return Err("a turn needs a `from`: human, gpt or system".to_owned()),
    };
    if !said.contains_key("value") {
        return Err("a turn needs a `value`: what is said".to_owned());
    }
    Ok(WeightedTurn { role: role.to_owned(), content: text_of(said, "value")?.to_owned(), weight: weight_of(said)? })
}

/// The names that such files give to the sides.
fn role_of(from: &str) -> Result<&'static str, String> {
    match from {
        "human" | "user" => Ok("user"),
        "gpt" | "assistant" | "chatgpt" | "model" | "bot" | "bard" | "bing" => Ok("assistant"),
        "system" => Ok("system"),
        "tool" | "function" | "function_call" | "observation" => {
            Err(format!("`from: {from}`: calls of tools cannot be learned yet; remove the row"))
        }
        other => Err(format!("`from: {other}` is not known; write human, gpt or system")),
    }
}
