//! `{"instruction", "input", "output"}`, with `system` and `history` where a file has them.

use serde_json::{Map, Value};

use super::example::{Content, WeightedTurn};
use super::{kind_of, optional_text, text_of};

pub(super) fn read(object: &Map<String, Value>) -> Result<Content, String> {
    let turn =
        |role: &str, content: &str| WeightedTurn { role: role.to_owned(), content: content.to_owned(), weight: None };
    let mut turns = Vec::new();
    if let Some(system) = optional_text(object, "system")?.filter(|text| !text.is_empty()) {
        turns.push(turn("system", system));
    }
    for (question, answer) in history(object)? {
        turns.push(turn("user", question));
        turns.push(turn("assistant", answer));
    }
    let instruction = text_of(object, "instruction")?;
    let question = match optional_text(object, "input")?.filter(|text| !text.trim().is_empty()) {
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction.to_owned(),
    };
    turns.push(turn("user", &question));
    turns.push(turn("assistant", text_of(object, "output")?));
    Ok(Content::Conversation(turns))
}

/// Pairs of earlier questions and answers.
fn history(object: &Map<String, Value>) -> Result<Vec<(&str, &str)>, String> {
    let list = match object.get("history") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(format!("`history` must be a list of [question, answer], this is {}", kind_of(other)));
        }
    };
    let pair = |pair: &'_ Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(_), Value::String(_)]) => Ok(()),
        _ => Err("`history` must be a list of [question, answer], two texts each".to_owned()),
    };
    list.iter().try_for_each(pair)?;
    Ok(list.iter().filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?))).collect())
}
