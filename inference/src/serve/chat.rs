//! `/v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::exchange::{Exchange, Sent, Unanswered};
use super::problem::Problem;
use super::writing::Writing;
use crate::openai::{read_chat, usage};
use crate::request::{Event, Request};

/// The field that holds the prompt.
const PROMPT: &str = "messages";

/// Answers a conversation.
pub(super) fn answer(mut exchange: Exchange<'_, '_>, body: &Map<String, Value>) -> Result<Sent, Unanswered> {
    let served = exchange.served;
    let writer = served.writer()?;
    let asked = read_chat(body, &served.defaults(served.options.max_tokens)).map_err(Problem::from)?;
    let (name, adapter) = served.model(asked.model.as_deref())?;
    let form = writer.form(name);
    let request = Request { adapter, ..asked.request };
    let client = exchange.client;
    let writing = Writing::begin(&writer.service, request.alternatives(asked.n), client, asked.stream)?;
    let (id, created) = (served.new_id("chatcmpl"), super::clock());
    if !asked.stream {
        let answers = exchange.whole(writing, PROMPT)?;
        let mut response = form.chat_completion(&id, &answers, asked.logprobs);
        response["created"] = created.into();
        return exchange.answer(&response);
    }
    let chunk = |index: usize, delta: Value, logprobs: Value, finish| {
        let mut chunk = form.chat_chunk(&id, index, delta, logprobs, finish);
        chunk["created"] = created.into();
        if asked.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let mut stream = exchange.stream(writing, PROMPT);
    let mut begun = vec![false; asked.n];
    let mut answers = Vec::new();
    while let Some((index, event)) = stream.next()? {
        if !std::mem::replace(&mut begun[index], true) {
            stream.send(&chunk(index, json!({"role": "assistant", "content": ""}), Value::Null, None))?;
        }
        match event {
            Event::Token { text, token } if asked.logprobs => {
                stream.send(&chunk(index, json!({"content": text}), form.chat_logprobs(&[token]), None))?;
            }
            Event::Token { text, .. } if !text.is_empty() => {
                stream.send(&chunk(index, json!({"content": text}), Value::Null, None))?;
            }
            Event::Done(answer) => {
                stream.send(&chunk(index, json!({}), Value::Null, Some(answer.finish)))?;
                answers.push(answer);
            }
            _ => {}
        }
    }
    let usage = usage(&answers, asked.n);
    if asked.include_usage {
        let mut last = form.chat_chunk(&id, 0, Value::Null, Value::Null, None);
        last["choices"] = json!([]);
        last["created"] = created.into();
        last["usage"] = usage.clone();
        stream.send(&last)?;
    }
    stream.end(&usage)
}
