//! `pipeline batch`: a file of requests in the `OpenAI` batch form.

use super::Session;
use super::chat::open_engine;
use crate::events::Event;
use crate::outcome::{Failure, Status};
use anyhow::{Context, Result};
use espalier_inference::{Finish, Prompt, Request, Sampling};
use espalier_model::Message;
use serde::Deserialize;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

#[derive(Debug, Deserialize)]
struct Line {
    custom_id: String,
    body: Body,
}

#[derive(Debug, Deserialize)]
struct Body {
    messages: Vec<Message>,
    #[serde(default = "default_max_tokens", alias = "max_completion_tokens")]
    max_tokens: usize,
    #[serde(default)]
    temperature: f32,
    top_p: Option<f32>,
    #[serde(default)]
    seed: u64,
    stop: Option<Stop>,
}

fn default_max_tokens() -> usize {
    256
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// `pipeline batch`.
pub fn run(model: &str, adapter: Option<&Path>, input: &Path, output: &Path, session: Session<'_>) -> Result<Status> {
    let lines = read(input)?;
    let done = answered(output)?;
    let waiting: Vec<&Line> = lines.iter().filter(|line| !done.contains(&line.custom_id)).collect();
    let engine = open_engine(model, adapter, session)?;
    let requests: Vec<Request> = waiting.iter().map(|line| request(&line.body)).collect();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(output)
        .with_context(|| format!("cannot write {}", output.display()))?;
    let mut failed = None;
    let mut count = done.len() as u64;
    engine.generate(&requests, &mut |index, answer| {
        let body = match answer {
            Ok(answer) => serde_json::json!({"custom_id": waiting[index].custom_id, "error": null, "response": {"status_code": 200, "body": {
                "choices": [{"index": 0, "message": {"role": "assistant", "content": answer.text},
                    "finish_reason": if answer.finish == Finish::Stop { "stop" } else { "length" }}],
                "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens.len()}}}}),
            Err(error) => serde_json::json!({"custom_id": waiting[index].custom_id, "response": null, "error": {"message": error.to_string()}}),
        };
        if let Err(error) = writeln!(file, "{body}") {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        count += 1;
        session.reporter.send(&Event::Progress {
            stage: "batch".into(), part: String::new(), done: count, total: lines.len() as u64, unit: "answers".into(), detail: String::new(),
        });
        if session.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error).with_context(|| format!("cannot write {} (is the disk full?)", output.display()));
    }
    session.reporter.result(serde_json::json!({"answers": count, "requests": lines.len()}));
    Ok(if count < lines.len() as u64 { Status::Interrupted } else { Status::Done })
}

fn read(input: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                Failure::usage(format!("{}:{}:{}: {error}", input.display(), number + 1, error.column()))
                    .hint("each line is {\"custom_id\": ..., \"body\": {\"messages\": [...]}}")
                    .into()
            })
        })
        .collect()
}

/// Ids that the output answers already; a torn last line is cut off.
fn answered(output: &Path) -> Result<HashSet<String>> {
    let Ok(text) = std::fs::read_to_string(output) else { return Ok(HashSet::new()) };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        OpenOptions::new().write(true).open(output)?.set_len(whole as u64)?;
    }
    let id = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).ok()?.get("custom_id")?.as_str().map(str::to_owned)
    };
    Ok(text[..whole].lines().filter_map(id).collect())
}

fn request(body: &Body) -> Request {
    Request {
        sampling: Sampling { temperature: body.temperature, top_p: body.top_p.unwrap_or(1.0), ..Sampling::default() },
        seed: body.seed,
        stop: match &body.stop {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop.clone()],
            Some(Stop::Many(stops)) => stops.clone(),
        },
        ..Request::new(Prompt::Chat(body.messages.clone()), body.max_tokens)
    }
}
