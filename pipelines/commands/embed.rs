//! `pipeline embed`: a vector for each text of a file.

use super::Session;
use crate::content::write_atomically;
use crate::events::Event;
use crate::models::resolve;
use crate::outcome::{Failure, Interrupted, Status};
use anyhow::{Context, Result};
use espalier_inference::{EmbeddingEngine, EmbeddingOptions};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Arguments of `pipeline embed`.
#[derive(Debug)]
pub struct Arguments {
    /// The model.
    pub model: String,
    /// Texts.
    pub input: PathBuf,
    /// Vectors.
    pub output: PathBuf,
    /// How vectors are made.
    pub options: EmbeddingOptions,
}

/// `pipeline embed`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    let texts = read(arguments)?;
    let found = resolve(&arguments.model, session.reporter, session.stop)?;
    let engine = EmbeddingEngine::load(&found.path, &session.engine_options())?;
    let (mut tokens, mut cut) = (Vec::with_capacity(texts.len()), 0);
    for (place, (_, text)) in texts.iter().enumerate() {
        let (ids, missing) = engine.encode(text).with_context(|| at(arguments, place))?;
        cut += usize::from(missing > 0);
        tokens.push(ids);
    }
    if cut > 0 {
        let message = format!(
            "{cut} texts are longer than the {} tokens that the model reads: their ends are left out",
            engine.context()
        );
        session.reporter.send(&Event::Warning { stage: "embed".into(), message });
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
    let (mut failure, mut done) = (None, 0);
    engine.embed(&tokens, arguments.options, &mut |place, vector| {
        match vector {
            Ok(vector) => vectors[place] = Some(vector),
            Err(error) => failure = Some(anyhow::Error::from(error).context(at(arguments, place))),
        }
        done += 1;
        progress(session, done, texts.len() as u64);
        let goes_on = failure.is_none() && !session.stop.load(Ordering::Relaxed);
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut lines = String::new();
    for ((id, _), vector) in texts.iter().zip(vectors) {
        let vector = vector.ok_or(Interrupted)?;
        lines += &format!("{}\n", json!({"id": id, "embedding": vector}));
    }
    write_atomically(&arguments.output, lines.as_bytes())?;
    let (count, width) = (texts.len(), engine.dimensions());
    session.reporter.closing(format!("{count} vectors of {width} in {}", arguments.output.display()));
    session
        .reporter
        .result(json!({"texts": count, "dimensions": width, "tokens": tokens.iter().map(Vec::len).sum::<usize>(),
        "cut": cut, "identity": engine.identity()}));
    Ok(Status::Done)
}

fn at(arguments: &Arguments, place: usize) -> String {
    format!("{}:{}", arguments.input.display(), place + 1)
}

/// The id and the text of each line; a line without an id has its number, from 0 on.
fn read(arguments: &Arguments) -> Result<Vec<(Value, String)>> {
    let input = arguments.input.display();
    let source = std::fs::read_to_string(&arguments.input)
        .map_err(|error| Failure::usage(format!("cannot read {input}: {error}")))?;
    let mut texts = Vec::new();
    for (place, line) in source.lines().enumerate() {
        let wrong = |problem: &str| {
            Failure::usage(format!("{}: {problem}", at(arguments, place)))
                .hint("each line is {\"text\": \"...\"}, with an \"id\" where there is one, or a text as a JSON string")
        };
        let value: Value = serde_json::from_str(line).map_err(|error| wrong(&format!("this is not JSON: {error}")))?;
        let text = value.as_str().or_else(|| value.get("text")?.as_str());
        let text = text.ok_or_else(|| wrong("there is no text"))?.to_owned();
        texts.push((value.get("id").cloned().unwrap_or_else(|| place.into()), text));
    }
    Ok(texts)
}

fn progress(session: Session<'_>, done: u64, total: u64) {
    session.reporter.send(&Event::Progress {
        stage: "embed".into(),
        part: "vectors".into(),
        done,
        total,
        unit: "texts".into(),
        detail: String::new(),
    });
}
