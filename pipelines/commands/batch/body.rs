//! The body of a request: the fields of `OpenAI`'s chat completions, and a few that other servers have beside them.
//!
//! A field that would change the answer but has no meaning here is refused, as an unknown one is; fields that say nothing
//! about the answer (`user`, `metadata`, `store`, ...) are passed over.

use espalier_inference::{Constraint, Overflow, Prompt, Request, Sampling};
use espalier_model::Message;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The longest answer of a request that does not say.
const MAX_TOKENS: usize = 256;

/// Answers of one prompt, at most: the limit of `OpenAI`.
const MAX_ANSWERS: usize = 128;

/// Fields about accounts, storage and transport.
const PASSED_OVER: [&str; 12] = [
    "metadata",
    "modalities",
    "model",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
];

/// What a body asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The request of the first answer.
    pub request: Request,
    /// How many answers.
    pub n: usize,
    /// Whether log-probabilities are part of the response.
    pub logprobs: bool,
}

/// Reads a body; `seed` is that of a request which names none. The error begins with the field.
pub fn read(body: &Map<String, Value>, seed: u64, overflow: Overflow) -> Result<Asked, String> {
    let mut asked = Asked {
        request: Request {
            // The default of the API.
            sampling: Sampling::at_temperature(1.0),
            seed,
            overflow,
            ..Request::new(Prompt::Chat(Vec::new()), MAX_TOKENS)
        },
        n: 1,
        logprobs: false,
    };
    for (field, value) in body {
        if !value.is_null() {
            set(&mut asked, field, value).map_err(|problem| format!("body.{field}{problem}"))?;
        }
    }
    if asked.request.prompt == Prompt::Chat(Vec::new()) {
        return Err("body.messages: is missing".to_owned());
    }
    if asked.request.top_logprobs > 0 && !asked.logprobs {
        return Err("body.top_logprobs: needs \"logprobs\": true beside it".to_owned());
    }
    Ok(asked)
}

/// Takes one field over; the error continues the field's name.
fn set(asked: &mut Asked, field: &str, value: &Value) -> Result<(), String> {
    let request = &mut asked.request;
    let sampling = &mut request.sampling;
    match field {
        "messages" => request.prompt = Prompt::Chat(messages(value)?),
        "max_tokens" | "max_completion_tokens" => request.max_tokens = integer(value, 1..=usize::MAX)?,
        "temperature" => sampling.temperature = number(value, 0.0..=2.0)?,
        "top_p" => sampling.top_p = number(value, 0.0..=1.0)?,
        "frequency_penalty" => sampling.frequency_penalty = number(value, -2.0..=2.0)?,
        "presence_penalty" => sampling.presence_penalty = number(value, -2.0..=2.0)?,
        "logit_bias" => sampling.logit_bias = logit_bias(value)?,
        "n" => asked.n = integer(value, 1..=MAX_ANSWERS)?,
        "seed" => {
            let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
            request.seed = seed.ok_or_else(|| wrong("a whole number", value))?;
        }
        "stop" => request.stop = one_or_more(value)?,
        "logprobs" => asked.logprobs = value.as_bool().ok_or_else(|| wrong("true or false", value))?,
        "top_logprobs" => request.top_logprobs = integer(value, 0..=20)?,
        "response_format" => request.constraint = response_format(value)?.map(Arc::new),
        // vLLM, llama-server.
        // Some write -1 for all.
        "top_k" => {
            let top_k = value.as_i64().ok_or_else(|| wrong("a whole number", value))?;
            sampling.top_k = usize::try_from(top_k).unwrap_or(0);
        }
        "min_p" => sampling.min_p = number(value, 0.0..=1.0)?,
        "repetition_penalty" | "repeat_penalty" => sampling.repetition_penalty = number(value, 0.01..=100.0)?,
        "stop_token_ids" => request.stop_tokens = tokens(value)?,
        "structured_outputs" => request.constraint = Some(Arc::new(structured_outputs(value)?)),
        "stream" if value.as_bool() == Some(false) => {}
        "stream" => return Err(": answers of a batch are not streamed; leave it out".to_owned()),
        "tools" | "tool_choice" | "functions" | "function_call" | "audio" | "web_search_options" => {
            return Err(": is not supported here; leave it out".to_owned());
        }
        _ if PASSED_OVER.contains(&field) => {}
        _ => return Err(": there is no such field".to_owned()),
    }
    Ok(())
}

fn wrong(expected: &str, found: &Value) -> String {
    let mut shown = found.to_string();
    if shown.chars().count() > 60 {
        shown = shown.chars().take(57).chain("...".chars()).collect();
    }
    format!(": must be {expected}, not {shown}")
}

fn number(value: &Value, range: RangeInclusive<f64>) -> Result<f32, String> {
    let in_range = value.as_f64().filter(|number| range.contains(number));
    let expected = || format!("a number from {} to {}", range.start(), range.end());
    in_range.map(|number| number as f32).ok_or_else(|| wrong(&expected(), value))
}

fn integer(value: &Value, range: RangeInclusive<usize>) -> Result<usize, String> {
    let in_range = value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|n| range.contains(n));
    in_range.ok_or_else(|| match *range.end() {
        usize::MAX => wrong(&format!("a whole number from {}", range.start()), value),
        end => wrong(&format!("a whole number from {} to {end}", range.start()), value),
    })
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
}

fn one_or_more(value: &Value) -> Result<Vec<String>, String> {
    let strings = value.as_str().map(|one| vec![one.to_owned()]).or_else(|| strings(value));
    strings.ok_or_else(|| wrong("a string or a list of strings", value))
}

fn tokens(value: &Value) -> Result<Vec<u32>, String> {
    let ids = value.as_array().and_then(|list| list.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect());
    ids.ok_or_else(|| wrong("a list of token ids", value))
}

fn logit_bias(value: &Value) -> Result<Vec<(u32, f32)>, String> {
    let map = value.as_object().ok_or_else(|| wrong("a map from token ids to numbers", value))?;
    // In the order of ids, so that the order of keys means nothing.
    let mut biases = BTreeMap::new();
    for (id, bias) in map {
        let token: u32 = id.parse().map_err(|_| format!(": {id:?} is not a token id"))?;
        biases.insert(token, number(bias, -100.0..=100.0).map_err(|problem| format!(".{id}{problem}"))?);
    }
    Ok(biases.into_iter().collect())
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

fn response_format(value: &Value) -> Result<Option<Constraint>, String> {
    match value.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Constraint::JsonObject)),
        Some("json_schema") => match value.pointer("/json_schema/schema") {
            Some(schema) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            None => Err(".json_schema.schema: is missing".to_owned()),
        },
        _ => Err(".type: must be \"text\", \"json_object\" or \"json_schema\"".to_owned()),
    }
}

fn structured_outputs(value: &Value) -> Result<Constraint, String> {
    let entries = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.iter().next());
    match entries {
        Some((kind, Value::String(expression))) if kind == "regex" => Ok(Constraint::Regex(expression.clone())),
        Some((kind, choices)) if kind == "choice" => strings(choices)
            .map(Constraint::Choice)
            .ok_or_else(|| format!(".choice{}", wrong("a list of strings", choices))),
        Some((kind, schema)) if kind == "json" => Ok(Constraint::JsonSchema(schema.clone())),
        Some((kind, Value::Bool(true))) if kind == "json_object" => Ok(Constraint::JsonObject),
        _ => Err(": must have one of \"json\" (a schema), \"regex\" (a string), \"choice\" (a list)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(value: Value) -> Result<Asked, String> {
        read(value.as_object().expect("a map"), 5, Overflow::Refuse)
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
        assert_eq!(asked, Asked { request: expected, n: 3, logprobs: true });
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_the_api() {
        let asked = with("user", json!("u")).expect("a request");
        assert_eq!((asked.n, asked.logprobs, asked.request.seed, asked.request.max_tokens), (1, false, 5, MAX_TOKENS));
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
            refused("stream", json!(true)),
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
