//! The body of a chat completion.

use serde_json::{Map, Value};

use super::fields::{Asked, Defaults, FieldProblem, boolean, integer, read_all, wrong};
use crate::request::Prompt;
use espalier_model::Message;

/// Reads the body of a chat completion.
///
/// # Errors
/// The first field that cannot be followed.
pub fn read_chat(body: &Map<String, Value>, defaults: &Defaults) -> Result<Asked, FieldProblem> {
    let asked = read_all(body, defaults, &mut |asked, field, value| {
        let request = &mut asked.request;
        match field {
            "messages" => request.prompt = Prompt::Chat(messages(value)?),
            "max_tokens" | "max_completion_tokens" => request.max_tokens = integer(value, 1..=usize::MAX)?,
            "logprobs" => asked.logprobs = boolean(value)?,
            "top_logprobs" => request.top_logprobs = integer(value, 0..=20)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let refused = |field: &str, problem: &str| FieldProblem { field: field.to_owned(), problem: problem.to_owned() };
    if asked.request.prompt == Prompt::Chat(Vec::new()) {
        return Err(refused("messages", ": is missing"));
    }
    if asked.request.top_logprobs > 0 && !asked.logprobs {
        return Err(refused("top_logprobs", ": needs \"logprobs\": true beside it"));
    }
    Ok(asked)
}

fn messages(value: &Value) -> Result<Vec<Message>, String> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong("a list with at least one message", value))?;
    let read = |(index, entry): (usize, &Value)| message(entry).map_err(|problem| format!("[{index}]{problem}"));
    list.iter().enumerate().map(read).collect()
}

fn message(entry: &Value) -> Result<Message, String> {
    let role = match entry.get("role").and_then(Value::as_str) {
        // The API's name for what templates call the system.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        Some(other) => return Err(format!(".role: must be system, developer, user or assistant, not {other:?}")),
        None => return Err(".role: is missing".to_owned()),
    };
    let content = match entry.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match part.get("type").and_then(Value::as_str) {
                Some("text") => part.get("text").and_then(Value::as_str).map(str::to_owned),
                _ => None,
            };
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            texts.ok_or(".content: only parts of the type \"text\" can be read")?.concat()
        }
        Some(other) => return Err(format!(".content{}", wrong("a string", other))),
        None => return Err(".content: is missing".to_owned()),
    };
    Ok(Message::new(role, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Constraint;
    use crate::overflow::Overflow;
    use crate::request::{Request, Sampling};
    use serde_json::json;
    use std::sync::Arc;

    fn read_json(value: Value) -> Result<Asked, String> {
        let defaults = Defaults { seed: 5, overflow: Overflow::Refuse, max_tokens: 256 };
        read_chat(value.as_object().expect("a map"), &defaults).map_err(|problem| problem.to_string())
    }

    fn with(field: &str, value: Value) -> Result<Asked, String> {
        read_json(json!({"messages": [{"role": "user", "content": "x"}], field: value}))
    }

    #[test]
    fn fields_mean_what_they_mean_to_the_api() {
        let asked = read_json(json!({
            "model": "any", "user": "u", "n": 3, "seed": -1, "temperature": 0.5, "top_p": 0.9, "stop": "\n",
            "messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                         {"role": "user", "content": "x"}],
            "frequency_penalty": 0.5, "presence_penalty": -1, "logit_bias": {"7": -100, "3": 2.5}, "stop_token_ids": [2],
            "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 4, "stream": false, "tools": null,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1,
        }))
        .expect("a request");
        let expected = Request {
            sampling: Sampling {
                temperature: 0.5,
                top_k: 0,
                top_p: 0.9,
                min_p: 0.1,
                repetition_penalty: 1.1,
                frequency_penalty: 0.5,
                presence_penalty: -1.0,
                logit_bias: vec![(3, 2.5), (7, -100.0)],
            },
            seed: u64::MAX,
            stop: vec!["\n".to_owned()],
            stop_tokens: vec![2],
            constraint: Some(Arc::new(Constraint::JsonSchema(json!({"type": "object"})))),
            top_logprobs: 4,
            ..Request::new(Prompt::Chat(vec![Message::new("system", "ab"), Message::new("user", "x")]), 9)
        };
        let (model, user) = (Some("any".to_owned()), Some("u".to_owned()));
        let (stream, include_usage) = (false, false);
        assert_eq!(asked, Asked { request: expected, n: 3, logprobs: true, model, user, stream, include_usage });
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_the_api() {
        let asked = with("user", json!("u")).expect("a request");
        assert_eq!((asked.n, asked.logprobs, asked.request.seed, asked.request.max_tokens), (1, false, 5, 256));
        assert_eq!(asked.request.sampling, Sampling::at_temperature(1.0));
    }

    #[test]
    fn forms_are_read() {
        let form = |field: &str, value| with(field, value).expect("a request").request.constraint;
        assert_eq!(form("response_format", json!({"type": "text"})), None);
        assert_eq!(form("response_format", json!({"type": "json_object"})).as_deref(), Some(&Constraint::JsonObject));
        let regex = form("structured_outputs", json!({"regex": "a+"}));
        assert_eq!(regex.as_deref(), Some(&Constraint::Regex("a+".to_owned())));
        let choice = form("structured_outputs", json!({"choice": ["a", "b"]}));
        assert_eq!(choice.as_deref(), Some(&Constraint::Choice(vec!["a".to_owned(), "b".to_owned()])));
    }

    #[test]
    fn refusals_name_the_field() {
        let refused = |field: &str, value| with(field, value).expect_err("a refusal");
        let words = [
            read_json(json!({})).expect_err("a refusal"),
            refused("n", json!(0)),
            refused("n", json!("2")),
            refused("temperature", json!(3)),
            refused("max_tokens", json!(-1)),
            refused("top_logprobs", json!(3)),
            refused("logit_bias", json!({"the": 1})),
            refused("logit_bias", json!({"5": 101})),
            refused("stop", json!(5)),
            refused("stream", json!("yes")),
            refused("tools", json!([])),
            refused("tempurature", json!(1)),
            refused("messages", json!([])),
            refused("messages", json!([{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}])),
            refused("messages", json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])),
            refused("messages", json!([{"role": "user"}])),
            refused("response_format", json!({"type": "xml"})),
            refused("response_format", json!({"type": "json_schema"})),
            refused("structured_outputs", json!({"grammar": "x"})),
        ];
        insta::assert_snapshot!(words.join("\n"));
    }
}
