//! The JSON of the `OpenAI` protocol, without any network.

use espalier_model::Message;
use serde_json::{Map, Value, json};

use crate::constraint::Constraint;
use crate::error::EngineError;
use crate::request::{Answer, Echoed, Finish, Prompt, Request, ServerUsage, TokenLogprob};

use super::form::{Form, constrain, instruct};
use super::kind::{Logprobs, ServerKind};

/// The path of a request and its JSON, in the words of a kind of server. Fields that some servers refuse are sent only where
/// they differ from the default.
///
/// # Errors
/// What was asked for and a server of this kind cannot do.
pub(super) fn body(
    request: &Request,
    model: &str,
    kind: ServerKind,
    form: Form,
) -> Result<(&'static str, Value), EngineError> {
    let words = kind.words();
    let lacks = |what| Err(EngineError::ServerLacks { kind, what });
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(model));
    if request.top_logprobs > 0 && words.logprobs == Logprobs::Absent {
        return lacks("log-probabilities with the ids of their tokens");
    }
    if request.adapter.is_some() {
        return lacks("adapters of the native engine (a server's own are chosen by the name of the model)");
    }
    let echo = request.prompt_logprobs.is_some();
    if echo && !(words.echo && matches!(request.prompt, Prompt::Text(_))) {
        return lacks(
            "log-probabilities of the tokens of a given text (`echo` with `logprobs`; vLLM and `pipeline serve` have them)",
        );
    }
    let path = match &request.prompt {
        Prompt::Chat(messages) => {
            let mut messages = messages.clone();
            if let Some(constraint) = &request.constraint {
                instruct(&mut messages, constraint, form);
            }
            body.insert("messages".to_owned(), json!(messages));
            if request.top_logprobs > 0 {
                body.insert("logprobs".to_owned(), json!(true));
                body.insert("top_logprobs".to_owned(), json!(request.top_logprobs));
            }
            "chat/completions"
        }
        prompt => {
            let prompt = match prompt {
                Prompt::Tokens(_) if !words.token_prompts => return lacks("prompts of token ids"),
                Prompt::Tokens(tokens) => json!(tokens),
                Prompt::Text(text) => json!(text),
                Prompt::Chat(_) => Value::Null,
            };
            body.insert("prompt".to_owned(), prompt);
            let alternatives = request.top_logprobs.max(request.prompt_logprobs.unwrap_or(0));
            if alternatives > 0 || echo {
                body.insert("logprobs".to_owned(), json!(alternatives.max(1)));
            }
            if echo {
                body.insert("echo".to_owned(), json!(true));
            }
            "completions"
        }
    };
    if request.top_logprobs > 0 && words.logprobs == Logprobs::TextIsId {
        body.insert("return_tokens_as_token_ids".to_owned(), json!(true));
    }
    sampling(&mut body, request, kind);
    if let Some(constraint) = &request.constraint {
        constrain(&mut body, constraint, words, form);
    }
    Ok((path, Value::Object(body)))
}

fn sampling(body: &mut Map<String, Value>, request: &Request, kind: ServerKind) {
    let (words, sampling) = (kind.words(), &request.sampling);
    let mut set = |field: &str, value: Value| {
        body.insert(field.to_owned(), value);
    };
    set("max_tokens", json!(request.max_tokens));
    set("temperature", json!(sampling.temperature));
    set("seed", json!(request.seed));
    if sampling.top_p < 1.0 {
        set("top_p", json!(sampling.top_p));
    }
    if sampling.top_k > 0 && words.truncation {
        set("top_k", json!(sampling.top_k));
    }
    if sampling.min_p > 0.0 && words.truncation {
        set("min_p", json!(sampling.min_p));
    }
    for (field, penalty) in
        [("frequency_penalty", sampling.frequency_penalty), ("presence_penalty", sampling.presence_penalty)]
    {
        if penalty.abs() > 0.0 {
            set(field, json!(penalty));
        }
    }
    if !sampling.logit_bias.is_empty() && words.logit_bias {
        let bias: Map<String, Value> =
            sampling.logit_bias.iter().map(|(token, bias)| (token.to_string(), json!(bias))).collect();
        set("logit_bias", Value::Object(bias));
    }
    if sampling.penalizes_repetition() {
        for field in words.repetition {
            set(field, json!(sampling.repetition_penalty));
        }
    }
    let stop: Vec<&String> = request.stop.iter().filter(|stop| !stop.is_empty()).collect();
    if !stop.is_empty() {
        set("stop", json!(stop));
    }
    if !request.stop_tokens.is_empty() && words.stop_tokens {
        set("stop_token_ids", json!(request.stop_tokens));
    }
}

/// Fields of a request that a kind of server has no word for, and that are left out.
pub(super) fn left_out(request: &Request, kind: ServerKind) -> Vec<&'static str> {
    let (words, sampling) = (kind.words(), &request.sampling);
    [
        ("top_k", sampling.top_k > 0 && !words.truncation),
        ("min_p", sampling.min_p > 0.0 && !words.truncation),
        ("repetition_penalty", sampling.penalizes_repetition() && words.repetition.is_empty()),
        ("logit_bias", !sampling.logit_bias.is_empty() && !words.logit_bias),
        ("stop_token_ids", !request.stop_tokens.is_empty() && !words.stop_tokens),
    ]
    .into_iter()
    .filter_map(|(field, left_out)| left_out.then_some(field))
    .collect()
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
    let logprobs = if request.top_logprobs > 0 { parse_logprobs(choice)? } else { Vec::new() };
    let (mut text, mut echo) = (content, Vec::new());
    if let (Some(_), Prompt::Text(prompt)) = (request.prompt_logprobs, &request.prompt) {
        echo = parse_echo(choice, prompt)?;
        text = content.strip_prefix(prompt.as_str()).unwrap_or_default();
    }
    let answer = Answer { text: text.to_owned(), finish, logprobs, echo, ..Answer::empty(0, 0) };
    Ok(counted(answer, request, json.get("usage")))
}

/// The answer with its counts: as `usage` tells them, as its tokens are listed, or estimated.
fn counted(answer: Answer, request: &Request, usage: Option<&Value>) -> Answer {
    let told = |field: &str| usage?.get(field)?.as_u64().and_then(|count| usize::try_from(count).ok());
    let estimate = |bytes: usize| bytes.div_ceil(4);
    // Servers that do not count write zeros too.
    let prompt = told("prompt_tokens").filter(|&count| count > 0).or(match &request.prompt {
        Prompt::Tokens(tokens) => Some(tokens.len()),
        Prompt::Text(_) | Prompt::Chat(_) => Some(answer.echo.len()).filter(|&count| count > 0),
    });
    let listed = Some(answer.logprobs.len()).filter(|&count| count > 0);
    let written = told("completion_tokens").filter(|&count| count > 0 || answer.text.is_empty()).or(listed);
    let estimated_prompt = || match &request.prompt {
        Prompt::Tokens(tokens) => tokens.len(),
        Prompt::Text(text) => estimate(text.len()),
        Prompt::Chat(messages) => estimate(messages.iter().map(|message| message.content.len()).sum()),
    };
    let server_usage = ServerUsage {
        new_tokens: written.unwrap_or_else(|| estimate(answer.text.len())),
        estimated: prompt.is_none() || written.is_none(),
    };
    let prompt_tokens = prompt.unwrap_or_else(estimated_prompt);
    Answer { prompt_tokens, server_usage: Some(server_usage), ..answer }
}

/// The prompt's tokens among those of an echo, by `text_offset` in characters; those that were written after it are left out.
fn parse_echo(choice: &Value, prompt: &str) -> Result<Vec<Echoed>, String> {
    let logprobs = choice.get("logprobs").filter(|logprobs| !logprobs.is_null());
    let list = |field: &str| logprobs?.get(field)?.as_array();
    let missing = || "it does not tell the log-probabilities of the prompt, though `echo` asked for them".to_owned();
    let offsets = list("text_offset").ok_or_else(missing)?;
    let values = list("token_logprobs").ok_or_else(missing)?;
    let tops = list("top_logprobs");
    let length = prompt.chars().count();
    let echoed = |(place, (offset, value)): (usize, (&Value, &Value))| {
        let likelier = |top: &Value| top.as_f64().zip(value.as_f64()).is_some_and(|(top, value)| top > value);
        let top = tops.and_then(|tops| tops.get(place)).and_then(Value::as_object);
        Some(Echoed {
            offset: usize::try_from(offset.as_u64()?).ok()?,
            logprob: value.as_f64(),
            likeliest: top.is_some_and(|top| !top.values().any(likelier)),
        })
    };
    let all: Option<Vec<Echoed>> = offsets.iter().zip(values).enumerate().map(echoed).collect();
    let mut all = all.ok_or_else(missing)?;
    all.retain(|token| token.offset < length);
    if all.is_empty() { Err(missing()) } else { Ok(all) }
}

/// Log-probabilities in a form that carries token ids: llama-server's `logprobs.content[].id`, or vLLM's texts `token_id:N`, in
/// the same place for conversations and in the lists of older completions for texts.
fn parse_logprobs(choice: &Value) -> Result<Vec<TokenLogprob>, String> {
    let logprobs = choice
        .get("logprobs")
        .filter(|logprobs| !logprobs.is_null())
        .ok_or("\"choices[0].logprobs\" is missing though log-probabilities were asked for")?;
    let parsed = match logprobs.get("content").and_then(Value::as_array) {
        Some(entries) => entries.iter().map(parse_entry).collect::<Option<_>>(),
        None => parse_lists(logprobs),
    };
    parsed
        .ok_or_else(|| "\"choices[0].logprobs\" has no ids of tokens (ask this server without top_logprobs)".to_owned())
}

fn parse_entry(entry: &Value) -> Option<TokenLogprob> {
    let pair = |entry: &Value| -> Option<(u32, f32)> {
        let id = match entry.get("id").and_then(Value::as_u64) {
            Some(id) => u32::try_from(id).ok()?,
            None => id_in(entry.get("token")?.as_str()?)?,
        };
        Some((id, entry.get("logprob")?.as_f64()? as f32))
    };
    let (token, logprob) = pair(entry)?;
    let top = match entry.get("top_logprobs").and_then(Value::as_array) {
        Some(top) => top.iter().map(pair).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    Some(TokenLogprob { token, logprob, top })
}

/// `tokens`, `token_logprobs` and `top_logprobs` beside each other.
fn parse_lists(logprobs: &Value) -> Option<Vec<TokenLogprob>> {
    let tokens = logprobs.get("tokens")?.as_array()?;
    let values = logprobs.get("token_logprobs")?.as_array()?;
    let tops = logprobs.get("top_logprobs").and_then(Value::as_array);
    let entry = |(index, (token, value)): (usize, (&Value, &Value))| {
        let mut top: Vec<(u32, f32)> = match tops.and_then(|tops| tops.get(index)?.as_object()) {
            Some(top) => {
                top.iter().map(|(token, value)| Some((id_in(token)?, value.as_f64()? as f32))).collect::<Option<_>>()?
            }
            None => Vec::new(),
        };
        top.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        Some(TokenLogprob { token: id_in(token.as_str()?)?, logprob: value.as_f64()? as f32, top })
    };
    tokens.iter().zip(values).enumerate().map(entry).collect()
}

fn id_in(token: &str) -> Option<u32> {
    token.strip_prefix("token_id:")?.parse().ok()
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
    fn counts_are_those_of_the_server_or_said_to_be_estimates() {
        let chat = Request::new(Prompt::Chat(vec![Message::new("user", "What is it?")]), 9);
        let counts = |usage: Value, text: &str, request: &Request| {
            let message = json!({"message": {"content": text}, "text": text});
            let answer = parse_answer(&json!({"choices": [message], "usage": usage}).to_string(), request).unwrap();
            (answer.prompt_tokens, answer.new_tokens(), answer.is_estimated())
        };
        let whole = json!({"prompt_tokens": 7, "completion_tokens": 3});
        assert_eq!(counts(whole, "a b c", &chat), (7, 3, false));
        assert_eq!(counts(json!({"prompt_tokens": 7, "completion_tokens": 0}), "", &chat), (7, 0, false));
        assert_eq!(counts(json!({"prompt_tokens": 7}), "It is a frog.", &chat), (7, 4, true));
        for silent in [Value::Null, json!({}), json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})] {
            assert_eq!(counts(silent.clone(), "It is a frog.", &chat), (3, 4, true), "{silent}");
        }
        // What is known here is not estimated.
        let tokens = Request::new(Prompt::Tokens(vec![5; 20]), 9);
        assert_eq!(counts(json!({"completion_tokens": 2}), "a b", &tokens), (20, 2, false));
        let listed = json!({"choices": [{"text": "a b c d e", "logprobs": {"content": [
            {"id": 5, "logprob": -0.5}, {"id": 6, "logprob": -0.5}]}}]});
        let answer = parse_answer(&listed.to_string(), &Request { top_logprobs: 1, ..tokens }).unwrap();
        assert_eq!((answer.new_tokens(), answer.is_estimated()), (2, false));
    }

    #[test]
    fn an_echo_is_read_by_its_offsets() {
        let request = Request { prompt_logprobs: Some(1), ..Request::new(Prompt::Text("né à".to_owned()), 1) };
        let (path, asked) = body(&request, "m", ServerKind::Vllm, Form::Fields).unwrap();
        assert_eq!((path, &asked["echo"], &asked["logprobs"]), ("completions", &json!(true), &json!(1)));
        let text = r#"{"choices":[{"text":"né à la","finish_reason":"length","logprobs":{
            "tokens":["n","é"," à"," la"],"text_offset":[0,1,2,4],"token_logprobs":[null,-1.5,-0.25,-3],
            "top_logprobs":[null,{"a":-0.5,"é":-1.5},{" à":-0.25},{" le":-1}]}}]}"#;
        let answer = parse_answer(text, &request).unwrap();
        let token = |offset, logprob, likeliest| Echoed { offset, logprob, likeliest };
        let expected = [token(0, None, false), token(1, Some(-1.5), false), token(2, Some(-0.25), true)];
        assert_eq!((answer.text.as_str(), &answer.echo[..]), (" la", &expected[..]));
        let silent = r#"{"choices":[{"text":"né à la","logprobs":null}]}"#;
        assert!(parse_answer(silent, &request).unwrap_err().contains("though `echo` asked for them"));
        let refused = body(&request, "m", ServerKind::LlamaServer, Form::Fields).unwrap_err().to_string();
        assert!(refused.contains("`echo` with `logprobs`"), "{refused}");
    }

    #[test]
    fn the_beginning_is_cut_at_a_character() {
        let text = "é".repeat(150);
        assert_eq!(beginning(&text), format!("{}...", "é".repeat(100)));
        assert_eq!(beginning("a\nb"), "a b");
    }
}
