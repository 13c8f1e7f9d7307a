//! The JSON of the `OpenAI` protocol, without any network.

use espalier_model::Message;
use serde_json::{Map, Value, json};

use crate::constraint::Constraint;
use crate::request::{Answer, Finish, Prompt, Request, TokenLogprob};

/// The path of a request and its JSON. Fields that some servers refuse are sent only where they differ from the default.
pub(super) fn body(request: &Request, model: &str) -> (&'static str, Value) {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    let path = match &request.prompt {
        Prompt::Chat(messages) => {
            body.insert("messages".to_owned(), json!(messages));
            if request.top_logprobs > 0 {
                body.insert("logprobs".to_owned(), json!(true));
                body.insert("top_logprobs".to_owned(), json!(request.top_logprobs));
            }
            "chat/completions"
        }
        prompt => {
            let prompt = match prompt {
                Prompt::Tokens(tokens) => json!(tokens),
                Prompt::Text(text) => json!(text),
                Prompt::Chat(_) => Value::Null,
            };
            body.insert("prompt".to_owned(), prompt);
            if request.top_logprobs > 0 {
                body.insert("logprobs".to_owned(), json!(request.top_logprobs));
            }
            "completions"
        }
    };
    let sampling = &request.sampling;
    body.insert("max_tokens".to_owned(), json!(request.max_tokens));
    body.insert("temperature".to_owned(), json!(sampling.temperature));
    body.insert("seed".to_owned(), json!(request.seed));
    if sampling.top_p < 1.0 {
        body.insert("top_p".to_owned(), json!(sampling.top_p));
    }
    if sampling.top_k > 0 {
        body.insert("top_k".to_owned(), json!(sampling.top_k));
    }
    if sampling.min_p > 0.0 {
        body.insert("min_p".to_owned(), json!(sampling.min_p));
    }
    for (field, penalty) in
        [("frequency_penalty", sampling.frequency_penalty), ("presence_penalty", sampling.presence_penalty)]
    {
        if penalty.abs() > 0.0 {
            body.insert(field.to_owned(), json!(penalty));
        }
    }
    if !sampling.logit_bias.is_empty() {
        let bias: Map<String, Value> =
            sampling.logit_bias.iter().map(|(token, bias)| (token.to_string(), json!(bias))).collect();
        body.insert("logit_bias".to_owned(), Value::Object(bias));
    }
    if sampling.penalizes_repetition() {
        // llama-server and vLLM spell it differently; each ignores the other's word.
        body.insert("repeat_penalty".to_owned(), json!(sampling.repetition_penalty));
        body.insert("repetition_penalty".to_owned(), json!(sampling.repetition_penalty));
    }
    let stop: Vec<&String> = request.stop.iter().filter(|stop| !stop.is_empty()).collect();
    if !stop.is_empty() {
        body.insert("stop".to_owned(), json!(stop));
    }
    if !request.stop_tokens.is_empty() {
        body.insert("stop_token_ids".to_owned(), json!(request.stop_tokens));
    }
    if let Some(constraint) = &request.constraint {
        constrain(&mut body, constraint);
    }
    (path, Value::Object(body))
}

/// The form of the answer in the words of those servers that know one: `response_format` is understood by all, what follows
/// no schema by vLLM (under two names, the older one `guided_*`) and llama-server (a grammar). Each ignores the others' words.
fn constrain(body: &mut Map<String, Value>, constraint: &Constraint) {
    let mut set = |field: &str, value: Value| body.insert(field.to_owned(), value);
    match constraint {
        Constraint::JsonSchema(schema) => set(
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}}),
        ),
        Constraint::JsonObject => set("response_format", json!({"type": "json_object"})),
        Constraint::Regex(expression) => {
            set("structured_outputs", json!({"regex": expression}));
            set("guided_regex", json!(expression))
        }
        Constraint::Choice(choices) => {
            set("structured_outputs", json!({"choice": choices}));
            set("guided_choice", json!(choices));
            // JSON strings are literals of a grammar too.
            let literals: Vec<String> = choices.iter().map(|choice| json!(choice).to_string()).collect();
            set("grammar", json!(format!("root ::= {}", literals.join(" | "))))
        }
    };
}

/// The request once more, after an answer that had not the form: a conversation shows the model what was wrong, a text is
/// continued with another seed.
pub(super) fn once_more(request: &Request, answer: &str, constraint: &Constraint, problem: &str) -> Request {
    let mut again = request.alternatives(2).last().unwrap_or_else(|| request.clone());
    if let Prompt::Chat(messages) = &mut again.prompt {
        let kind = constraint.kind();
        messages.push(Message::new("assistant", answer));
        messages.push(Message::new(
            "user",
            format!(
                "Your answer does not fit the {kind} that was asked for: {problem}. Answer again, with the text in that form alone: \
                 no explanation, no code block."
            ),
        ));
    }
    again
}

/// What to do about a status.
pub(super) fn remedy(status: u16) -> &'static str {
    match status {
        400 | 422 => {
            "the server refuses the request: compare its options (context length, sampling fields) with the message"
        }
        401 | 403 => "put the server's key into the environment variable ESPALIER_API_KEY",
        404 => "check the path of the URL and the name of the model",
        429 => "the server is busy: lower the concurrency or wait",
        500.. => "look into the server's log",
        _ => "check the URL",
    }
}

/// The first 200 bytes, on one line.
pub(super) fn beginning(text: &str) -> String {
    let mut end = text.len().min(200);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut start = text[..end].replace(['\n', '\r'], " ");
    if end < text.len() {
        start.push_str("...");
    }
    start
}

/// Reads an answer; the error names what is missing.
pub(super) fn parse_answer(text: &str, request: &Request) -> Result<Answer, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error})"))?;
    let choice = json
        .get("choices")
        .ok_or("\"choices\" is missing")?
        .get(0)
        .ok_or("\"choices\" is not a list with at least one entry")?;
    let chat = matches!(request.prompt, Prompt::Chat(_));
    let content = if chat {
        let message = choice.get("message").ok_or("\"choices[0].message\" is missing")?;
        match message.get("content") {
            // Servers send null for an empty answer.
            Some(Value::Null) => "",
            Some(Value::String(content)) => content,
            Some(_) => return Err("\"choices[0].message.content\" is not a string".to_owned()),
            None => return Err("\"choices[0].message.content\" is missing".to_owned()),
        }
    } else {
        choice.get("text").and_then(Value::as_str).ok_or("\"choices[0].text\" is missing or not a string")?
    };
    let finish = match choice.get("finish_reason").and_then(Value::as_str) {
        Some("length") => Finish::Length,
        _ => Finish::Stop,
    };
    let prompt_tokens = json.pointer("/usage/prompt_tokens").and_then(Value::as_u64).unwrap_or(0) as usize;
    let logprobs = if request.top_logprobs > 0 { parse_logprobs(choice)? } else { Vec::new() };
    Ok(Answer { text: content.to_owned(), finish, logprobs, ..Answer::empty(prompt_tokens, 0) })
}

/// Log-probabilities in the form that carries token ids (llama-server: `choices[0].logprobs.content[].id`).
fn parse_logprobs(choice: &Value) -> Result<Vec<TokenLogprob>, String> {
    let entries = choice
        .pointer("/logprobs/content")
        .and_then(Value::as_array)
        .ok_or("\"choices[0].logprobs.content\" is missing though log-probabilities were asked for")?;
    let pair = |entry: &Value| -> Option<(u32, f32)> {
        let id = u32::try_from(entry.get("id")?.as_u64()?).ok()?;
        Some((id, entry.get("logprob")?.as_f64()? as f32))
    };
    entries
        .iter()
        .map(|entry| {
            let (token, logprob) = pair(entry)?;
            let top = match entry.get("top_logprobs").and_then(Value::as_array) {
                Some(top) => top.iter().map(pair).collect::<Option<_>>()?,
                None => Vec::new(),
            };
            Some(TokenLogprob { token, logprob, top })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            "\"choices[0].logprobs.content[]\" has no token \"id\" (ask this server without top_logprobs)".to_owned()
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn completion() -> Request {
        Request::new(Prompt::Text("x".to_owned()), 4)
    }

    #[test]
    fn errors_name_what_is_missing() {
        let missing = |text: &str| parse_answer(text, &completion()).unwrap_err();
        assert!(missing("<html>").starts_with("it is not JSON"));
        assert_eq!(missing("{}"), "\"choices\" is missing");
        assert!(missing(r#"{"choices":[]}"#).contains("at least one"));
        assert!(missing(r#"{"choices":[{}]}"#).contains("choices[0].text"));
    }

    #[test]
    fn logprobs_with_ids_are_read() {
        let text = r#"{"choices":[{"text":"a","finish_reason":"length","logprobs":{"content":[
            {"id":5,"token":"a","logprob":-0.5,"top_logprobs":[{"id":5,"logprob":-0.5},{"id":7,"logprob":-1.5}]}]}}],
            "usage":{"prompt_tokens":3}}"#;
        let answer = parse_answer(text, &Request { top_logprobs: 2, ..completion() }).unwrap();
        assert_eq!((answer.finish, answer.prompt_tokens), (Finish::Length, 3));
        assert_eq!(answer.logprobs, [TokenLogprob { token: 5, logprob: -0.5, top: vec![(5, -0.5), (7, -1.5)] }]);
    }

    #[test]
    fn the_beginning_is_cut_at_a_character() {
        let text = "é".repeat(150);
        assert_eq!(beginning(&text), format!("{}...", "é".repeat(100)));
        assert_eq!(beginning("a\nb"), "a b");
    }
}
