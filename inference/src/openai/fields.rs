//! Fields that chat completions and completions have in common, and how a value is read.
//!
//! A field that would change the answer but has no meaning here is refused, as an unknown one is; fields that say nothing
//! about the answer (`user`, `metadata`, `store`, ...) are passed over.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::constraint::Constraint;
use crate::overflow::Overflow;
use crate::request::{Prompt, Request, Sampling};

/// Answers of one prompt, at most: the limit of `OpenAI`.
const MAX_ANSWERS: usize = 128;

/// Fields about accounts, storage and transport.
const PASSED_OVER: [&str; 10] = [
    "metadata",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
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
    /// The model that is to answer, if the body names one.
    pub model: Option<String>,
    /// Who asks, in the words of the body.
    pub user: Option<String>,
    /// Whether the answer is to be sent as it is written.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub include_usage: bool,
}

/// What holds where a body says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Decides sampled answers.
    pub seed: u64,
    /// What happens to prompts that do not fit.
    pub overflow: Overflow,
    /// The longest answer.
    pub max_tokens: usize,
}

/// A field that cannot be followed: displayed, it is the field's path and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}{problem}")]
pub struct FieldProblem {
    /// The field's name in the body.
    pub field: String,
    /// What stands behind it: the rest of the path, a colon, words.
    pub problem: String,
}

/// The fields of a body that came as bytes.
///
/// # Errors
/// Bytes that are no JSON object, in words.
pub fn parse_body(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} of the body is not UTF-8 text", error.valid_up_to() + 1))?;
    if text.trim().is_empty() {
        return Err("the body is empty; send a JSON object".to_owned());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the body is JSON, but not an object".to_owned()),
        Err(error) => Err(format!("the body is not JSON: {error}")),
    }
}

/// Reads every field of a body that is not null; `own` takes those that one endpoint alone has, and says whether it did.
pub(super) fn read_all(
    body: &Map<String, Value>,
    defaults: &Defaults,
    own: &mut dyn FnMut(&mut Asked, &str, &Value) -> Result<bool, String>,
) -> Result<Asked, FieldProblem> {
    let mut asked = Asked {
        request: Request {
            // The default of the API.
            sampling: Sampling::at_temperature(1.0),
            seed: defaults.seed,
            overflow: defaults.overflow,
            ..Request::new(Prompt::Chat(Vec::new()), defaults.max_tokens)
        },
        n: 1,
        logprobs: false,
        model: None,
        user: None,
        stream: false,
        include_usage: false,
    };
    for (field, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        let taken =
            own(&mut asked, field, value).and_then(|taken| if taken { Ok(()) } else { set(&mut asked, field, value) });
        taken.map_err(|problem| FieldProblem { field: field.clone(), problem })?;
    }
    Ok(asked)
}

/// Takes one field over; the error continues the field's name.
fn set(asked: &mut Asked, field: &str, value: &Value) -> Result<(), String> {
    let request = &mut asked.request;
    let sampling = &mut request.sampling;
    match field {
        "model" => asked.model = Some(string(value)?),
        "user" => asked.user = Some(string(value)?),
        "stream" => asked.stream = boolean(value)?,
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
        "tools" | "tool_choice" | "functions" | "function_call" | "audio" | "web_search_options" => {
            return Err(": is not supported here; leave it out".to_owned());
        }
        "stream_options" => {
            asked.include_usage = value.get("include_usage").and_then(Value::as_bool).unwrap_or(false);
        }
        _ if PASSED_OVER.contains(&field) => {}
        _ => return Err(": there is no such field".to_owned()),
    }
    Ok(())
}

/// What a value should have been, and what it is.
pub(super) fn wrong(expected: &str, found: &Value) -> String {
    let mut shown = found.to_string();
    if shown.chars().count() > 60 {
        shown = shown.chars().take(57).chain("...".chars()).collect();
    }
    format!(": must be {expected}, not {shown}")
}

pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| wrong("true or false", value))
}

fn string(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string", value))
}

fn number(value: &Value, range: RangeInclusive<f64>) -> Result<f32, String> {
    let in_range = value.as_f64().filter(|number| range.contains(number));
    let expected = || format!("a number from {} to {}", range.start(), range.end());
    in_range.map(|number| number as f32).ok_or_else(|| wrong(&expected(), value))
}

pub(super) fn integer(value: &Value, range: RangeInclusive<usize>) -> Result<usize, String> {
    let in_range = value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|n| range.contains(n));
    in_range.ok_or_else(|| match *range.end() {
        usize::MAX => wrong(&format!("a whole number from {}", range.start()), value),
        end => wrong(&format!("a whole number from {} to {end}", range.start()), value),
    })
}

pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
}

fn one_or_more(value: &Value) -> Result<Vec<String>, String> {
    let strings = value.as_str().map(|one| vec![one.to_owned()]).or_else(|| strings(value));
    strings.ok_or_else(|| wrong("a string or a list of strings", value))
}

/// Ids, if the value is a list of nothing else.
pub(super) fn token_list(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

fn tokens(value: &Value) -> Result<Vec<u32>, String> {
    token_list(value).ok_or_else(|| wrong("a list of token ids", value))
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
