//! `pipeline batch`: a file of requests in the `OpenAI` batch form.

mod answers;

use super::Session;
use super::chat::open_for_texts;
use crate::content;
use crate::events::Event;
use crate::outcome::{Failure, Status};
use crate::servers;
use anyhow::{Context, Result};
use espalier_inference::openai::{self, Asked, Defaults, Form};
use espalier_inference::{Answer, Constraint, Engine, EngineError, Overflow, Request};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// The longest answer of a request that does not say.
const MAX_TOKENS: usize = 256;

/// Arguments of `pipeline batch`.
#[derive(Debug)]
pub struct Arguments {
    /// The model, or its name at the server.
    pub model: String,
    /// Its adapter.
    pub adapter: Option<PathBuf>,
    /// `native`, or the URLs of servers.
    pub engine: String,
    /// What happens to prompts that do not fit.
    pub overflow: Overflow,
    /// Requests, one a line.
    pub input: PathBuf,
    /// Answers, one a line.
    pub output: PathBuf,
}

/// A line of the input.
struct Line {
    number: usize,
    custom_id: String,
    /// What names the request: the same line with another body has another.
    hash: String,
    asked: Asked,
}

/// `pipeline batch`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    let lines = read(&arguments.input, arguments.overflow)?;
    let engine = open(arguments, session)?;
    check_constraints(&lines, &engine, &arguments.input)?;
    let ids: Vec<String> = lines.iter().map(|line| response_id(line, engine.identity())).collect();
    let expected = lines.iter().map(|line| line.custom_id.as_str()).zip(ids.iter().cloned()).collect();
    let done = answers::kept(&arguments.output, &expected)?;
    let mut run = Run {
        file: OpenOptions::new()
            .create(true)
            .append(true)
            .open(&arguments.output)
            .with_context(|| format!("cannot write {}", arguments.output.display()))?,
        waiting: Vec::new(),
        form: Form {
            model: &arguments.model,
            fingerprint: engine.identity(),
            tokenizer: match &engine {
                Engine::Native(engine) => Some(engine.tokenizer()),
                Engine::Servers(_) => None,
            },
        },
        answered: done.len(),
        failed: 0,
        prompts_cut: 0,
    };
    let mut requests: Vec<Request> = Vec::new();
    // Which line and which of its answers a request is for.
    let mut places = Vec::new();
    for (line, id) in lines.iter().zip(&ids).filter(|(line, _)| !done.contains(&line.custom_id)) {
        places.extend((0..line.asked.n).map(|answer| (run.waiting.len(), answer)));
        requests.extend(line.asked.request.alternatives(line.asked.n));
        run.waiting.push(Waiting { line, id, answers: vec![None; line.asked.n], open: true });
    }
    let mut broken = None;
    let on_answer = &mut |request: usize, answer| {
        let (waiting, index) = places[request];
        if let Err(error) = run.take(waiting, index, answer) {
            broken = Some(error);
            return ControlFlow::Break(());
        }
        let done = (run.answered + run.failed) as u64;
        session.reporter.send(&Event::Progress {
            stage: "batch".into(),
            part: String::new(),
            done,
            total: lines.len() as u64,
            unit: "answers".into(),
            detail: String::new(),
        });
        if session.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let on_event = &mut |event: &_| servers::report(event, "batch", session.reporter);
    let ended = engine.generate_with_events(&requests, on_answer, on_event);
    if let Some(error) = broken {
        return Err(error).with_context(|| format!("cannot write {} (is the disk full?)", arguments.output.display()));
    }
    run.report(lines.len(), session);
    // What was answered until then is written, and stays.
    ended?;
    let complete = run.answered + run.failed == lines.len();
    Ok(if complete { Status::Done } else { Status::Interrupted })
}

/// A request whose answers are not all there.
struct Waiting<'a> {
    line: &'a Line,
    id: &'a str,
    answers: Vec<Option<Answer>>,
    /// Whether its line is still to be written.
    open: bool,
}

struct Run<'a> {
    file: File,
    waiting: Vec<Waiting<'a>>,
    form: Form<'a>,
    answered: usize,
    failed: usize,
    prompts_cut: usize,
}

impl Run<'_> {
    /// Keeps one answer; writes the line when it is the last of its request, or the first that failed.
    fn take(&mut self, waiting: usize, index: usize, answer: Result<Answer, EngineError>) -> std::io::Result<()> {
        let waiting = &mut self.waiting[waiting];
        if !waiting.open {
            return Ok(());
        }
        let custom_id = &waiting.line.custom_id;
        let text = match answer {
            Err(error) => {
                self.failed += 1;
                answers::failure(waiting.id, custom_id, &error)
            }
            Ok(answer) => {
                waiting.answers[index] = Some(answer);
                if waiting.answers.iter().any(Option::is_none) {
                    return Ok(());
                }
                let all: Vec<Answer> = waiting.answers.drain(..).flatten().collect();
                self.answered += 1;
                self.prompts_cut += usize::from(all.iter().any(|answer| answer.prompt_tokens_cut > 0));
                answers::response(self.form, waiting.id, custom_id, &all, waiting.line.asked.logprobs)
            }
        };
        waiting.open = false;
        // One call, so that a kill leaves at most one torn line.
        self.file.write_all(format!("{text}\n").as_bytes())
    }

    fn report(&self, requests: usize, session: Session<'_>) {
        let warn = |message| session.reporter.send(&Event::Warning { stage: "batch".into(), message });
        if self.failed > 0 {
            warn(format!(
                "{} of {requests} requests failed: \"error\" in their lines says why; the same command asks them again",
                self.failed
            ));
        }
        if self.prompts_cut > 0 {
            warn(format!("{} prompts did not fit into the context window and were cut", self.prompts_cut));
        }
        session.reporter.result(serde_json::json!({"answers": self.answered, "failed": self.failed,
            "prompts_cut": self.prompts_cut, "requests": requests}));
    }
}

fn open(arguments: &Arguments, session: Session<'_>) -> Result<Engine> {
    if arguments.engine == "native" {
        return Ok(Engine::Native(open_for_texts(&arguments.model, arguments.adapter.as_deref(), session)?));
    }
    if arguments.adapter.is_some() {
        return Err(Failure::usage("--adapter: a server chooses its adapters itself")
            .hint("leave it out, and name what the server serves with --model")
            .into());
    }
    let urls = super::servers(&arguments.engine)?.unwrap_or_default();
    servers::open(&urls, Some(&arguments.model))
}

/// Refuses forms that no answer can have, before the first is written.
fn check_constraints(lines: &[Line], engine: &Engine, input: &Path) -> Result<()> {
    let mut seen: HashSet<&Constraint> = HashSet::new();
    for line in lines {
        let Some(constraint) = line.asked.request.constraint.as_deref() else { continue };
        if !seen.insert(constraint) {
            continue;
        }
        if let Err(error) = engine.check_constraint(constraint) {
            return Err(Failure::usage(format!("{}:{}: {error}", input.display(), line.number)).into());
        }
    }
    Ok(())
}

/// The id of a response says what it answers: the request, by whom.
fn response_id(line: &Line, identity: &str) -> String {
    let hash = content::hash_bytes(format!("{}\n{}\n{identity}", line.custom_id, line.hash).as_bytes());
    format!("batch_req_{}", &hash[..24])
}

fn read(input: &Path, overflow: Overflow) -> Result<Vec<Line>> {
    let bytes =
        std::fs::read(input).map_err(|error| Failure::usage(format!("cannot read {}: {error}", input.display())))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut lines = Vec::new();
    let mut first_with: HashMap<String, usize> = HashMap::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = index + 1;
        let refused = |problem: &str| {
            Failure::usage(format!("{}:{number}:{problem}", input.display()))
                .hint("each line is {\"custom_id\": \"1\", \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}]}}")
        };
        let line = read_line(number, line, overflow).map_err(|problem| refused(&problem))?;
        if let Some(first) = first_with.insert(line.custom_id.clone(), number) {
            return Err(refused(&format!(" custom_id {:?} is that of line {first} too", line.custom_id)).into());
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Reads one line; the error begins with the column where there is one.
fn read_line(number: usize, line: &[u8], overflow: Overflow) -> Result<Line, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("{}: this byte is not UTF-8 text", error.valid_up_to() + 1))?;
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("{}: this is not JSON: {}", error.column(), words(&error)))?;
    let custom_id = match value.get("custom_id") {
        Some(Value::String(id)) => id.clone(),
        Some(_) => return Err(" custom_id must be a string".to_owned()),
        None => return Err(" custom_id is missing".to_owned()),
    };
    if let Some(url) = value.get("url").and_then(Value::as_str).filter(|url| !url.ends_with("/chat/completions")) {
        return Err(format!(" url: only /v1/chat/completions is answered, not {url:?}"));
    }
    let body: &Map<String, Value> = match value.get("body") {
        Some(Value::Object(body)) => body,
        Some(_) => return Err(" body must be a map".to_owned()),
        None => return Err(" body is missing".to_owned()),
    };
    let hash = content::hash_bytes(format!("{overflow:?} {}", Value::Object(body.clone())).as_bytes());
    let own_seed = u64::from_str_radix(&content::hash_bytes(custom_id.as_bytes())[..15], 16).unwrap_or(0);
    let defaults = Defaults { seed: own_seed, overflow, max_tokens: MAX_TOKENS };
    let asked = openai::read_chat(body, &defaults).map_err(|problem| format!(" body.{problem}"))?;
    if asked.stream {
        return Err(" body.stream: answers of a batch are not streamed; leave it out".to_owned());
    }
    Ok(Line { number, custom_id, hash, asked })
}

/// The library's message without its place, which stands in front.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(words, _)| words.to_owned())
}
