//! `/v1/completions`.

use serde_json::{Map, Value, json};

use super::exchange::{Exchange, Sent, Unanswered};
use super::problem::Problem;
use super::writing::Writing;
use crate::error::EngineError;
use crate::native::NativeEngine;
use crate::openai::{Echo, TokenColumns, read_completion, reason, usage};
use crate::request::{Answer, Event, Prompt, Request};

/// The longest answer of a request that does not say: the default of the API.
const MAX_TOKENS: usize = 16;

/// The field that holds the prompt.
const PROMPT: &str = "prompt";

/// Continues texts.
pub(super) fn answer(mut exchange: Exchange<'_, '_>, body: &Map<String, Value>) -> Result<Sent, Unanswered> {
    let served = exchange.served;
    let writer = served.writer()?;
    let read = read_completion(body, &served.defaults(MAX_TOKENS)).map_err(Problem::from)?;
    let (asked, echo) = (read.asked, read.echo);
    let (name, adapter) = served.model(asked.model.as_deref())?;
    let (form, engine) = (writer.form(name), writer.engine.as_ref());
    if echo && asked.logprobs && asked.stream {
        let message = "echo: log-probabilities of a prompt are not streamed; leave \"stream\" out".to_owned();
        return Err(Problem::new(400, message).at("echo").with_code("invalid_value").into());
    }
    let total = read.prompts.len() * asked.n;
    if total > served.options.max_waiting {
        let most = served.options.max_waiting;
        let message = format!("prompt: asks for {total} answers at once, but {most} may wait; send several requests");
        return Err(Problem::new(400, message).at(PROMPT).with_code("invalid_value").into());
    }
    let mut common = Request { adapter, ..asked.request };
    let mut echoes: Vec<Option<Echo>> = Vec::new();
    let mut prompts = Vec::with_capacity(read.prompts.len());
    for prompt in read.prompts {
        if echo {
            let (prompt, echo) = echoed(engine, prompt).map_err(|error| Problem::of_engine(&error, PROMPT))?;
            prompts.push(prompt);
            echoes.push(Some(echo));
        } else {
            prompts.push(prompt);
            echoes.push(None);
        }
    }
    if echo && asked.logprobs {
        common.prompt_logprobs = Some(common.top_logprobs);
    }
    let requests = prompts.into_iter().flat_map(|prompt| {
        let request = Request { prompt, ..common.clone() };
        request.alternatives(asked.n).collect::<Vec<_>>()
    });
    let writing = Writing::begin(&writer.service, requests, exchange.client, asked.stream)?;
    let (id, created) = (served.new_id("cmpl"), super::clock());
    let response = |choices: Vec<Value>| {
        let mut response = form.completion(&id, choices);
        response["created"] = created.into();
        response
    };
    if !asked.stream {
        let answers = exchange.whole(writing, PROMPT)?;
        let choice = |(index, answer): (usize, &Answer)| {
            let echo = echoes[index / asked.n].as_ref();
            let logprobs = if asked.logprobs { columns(engine, echo, answer) } else { Value::Null };
            let text = echo.map_or("", |echo| echo.text.as_str()).to_owned() + &answer.text;
            json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason(answer.finish)})
        };
        let mut whole = response(answers.iter().enumerate().map(choice).collect());
        whole["usage"] = usage(&answers, asked.n);
        return exchange.answer(&whole);
    }
    let mut stream = exchange.stream(writing, PROMPT);
    let mut begun = vec![false; total];
    let mut characters = vec![0; total];
    let mut answers: Vec<Option<Answer>> = vec![None; total];
    while let Some((index, event)) = stream.next()? {
        if let Some(echo) = echoes[index / asked.n].as_ref().filter(|_| !std::mem::replace(&mut begun[index], true)) {
            let choice = json!({"index": index, "text": echo.text, "logprobs": null, "finish_reason": null});
            characters[index] = echo.text.chars().count();
            stream.send(&response(vec![choice]))?;
        }
        match event {
            Event::Token { text, token } if asked.logprobs || !text.is_empty() => {
                let mut columns = TokenColumns::new(engine.tokenizer(), characters[index]);
                columns.push(&token);
                characters[index] = columns.characters();
                let logprobs = if asked.logprobs { columns.into_value() } else { Value::Null };
                let choice = json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null});
                stream.send(&response(vec![choice]))?;
            }
            Event::Done(answer) => {
                let mut columns = TokenColumns::new(engine.tokenizer(), characters[index]);
                answer.end.iter().for_each(|end| columns.push(end));
                let logprobs = if asked.logprobs { columns.into_value() } else { Value::Null };
                let finish = reason(answer.finish);
                let choice = json!({"index": index, "text": "", "logprobs": logprobs, "finish_reason": finish});
                stream.send(&response(vec![choice]))?;
                answers[index] = Some(answer);
            }
            _ => {}
        }
    }
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();
    let usage = usage(&answers, asked.n);
    if asked.include_usage {
        let mut last = response(Vec::new());
        last["usage"] = usage.clone();
        stream.send(&last)?;
    }
    stream.end(&usage)
}

/// A prompt as the tokens that the model will see, and how it stands in the answer.
fn echoed(engine: &NativeEngine, prompt: Prompt) -> Result<(Prompt, Echo), EngineError> {
    let tokens = engine.prompt_tokens(&prompt)?;
    let bytes = || tokens.iter().flat_map(|&token| engine.tokenizer().token_bytes(token)).copied().collect::<Vec<_>>();
    let text = if let Prompt::Text(text) = prompt { text } else { String::from_utf8_lossy(&bytes()).into_owned() };
    Ok((Prompt::Tokens(tokens.clone()), Echo { text, tokens }))
}

fn columns(engine: &NativeEngine, echo: Option<&Echo>, answer: &Answer) -> Value {
    let mut columns = TokenColumns::new(engine.tokenizer(), 0);
    if let Some(echo) = echo {
        columns.echo(echo, &answer.prompt_logprobs);
    }
    // The token that ended the answer stands in the columns too, as at OpenAI: harnesses count on one entry behind the prompt.
    for chosen in answer.logprobs.iter().chain(&answer.end) {
        columns.push(chosen);
    }
    columns.into_value()
}
