//! `pipeline chat`: talk to a model, or to two side by side.

use super::Session;
use crate::events::Event;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::Result;
use espalier_inference::{Answer, EngineOptions, NativeEngine, Prompt, Request, Sampling};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Message, Model};
use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Arguments of `pipeline chat`.
#[derive(Debug)]
pub struct Arguments {
    /// The model.
    pub model: String,
    /// Its adapter.
    pub adapter: Option<PathBuf>,
    /// A second model.
    pub compare: Option<String>,
    /// Randomness.
    pub temperature: f32,
    /// Longest answer.
    pub max_tokens: usize,
    /// One question instead of a conversation.
    pub ask: Option<String>,
}

struct Speaker {
    label: String,
    engine: NativeEngine,
    history: Vec<Message>,
}

/// Opens a model by reference, with an adapter when one is given.
pub fn open_engine(reference: &str, adapter: Option<&Path>, session: Session<'_>) -> Result<NativeEngine> {
    open(reference, adapter, false, session)
}

/// [`open_engine`] for one text at a time: the weights stay in the blocks of their file, unless the user asks for exactness.
pub fn open_for_one(reference: &str, adapter: Option<&Path>, session: Session<'_>) -> Result<NativeEngine> {
    let engine = open(reference, adapter, session.precision == Precision::Bf16, session)?;
    session.reporter.send(&Event::Note { stage: "engine".into(), message: engine.weight_form() });
    Ok(engine)
}

fn open(reference: &str, adapter: Option<&Path>, single_sequence: bool, session: Session<'_>) -> Result<NativeEngine> {
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = adapter.map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let options = EngineOptions { single_sequence, ..engine_options(session) };
    Ok(NativeEngine::load(&model, adapter.as_ref(), &options)?)
}

/// What the command line says of an engine.
pub fn engine_options(session: Session<'_>) -> EngineOptions {
    let memory = session.memory.map(|bytes| bytes.0 as u64);
    EngineOptions { precision: session.precision, memory, ..EngineOptions::default() }
}

/// `pipeline chat`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    let label = |reference: &str, adapter: bool| {
        let name =
            Path::new(reference).file_name().map_or(reference.to_owned(), |name| name.to_string_lossy().into_owned());
        if adapter { format!("{name} + adapter") } else { name }
    };
    let mut speakers = vec![Speaker {
        label: label(&arguments.model, arguments.adapter.is_some()),
        engine: open_for_one(&arguments.model, arguments.adapter.as_deref(), session)?,
        history: Vec::new(),
    }];
    if let Some(other) = &arguments.compare {
        speakers.push(Speaker {
            label: label(other, false),
            engine: open_for_one(other, None, session)?,
            history: Vec::new(),
        });
    }
    if let Some(question) = &arguments.ask {
        let answers =
            speakers.iter_mut().map(|speaker| answer(speaker, question, arguments)).collect::<Result<Vec<_>>>()?;
        show(&speakers, &answers, session);
        return Ok(Status::Done);
    }
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        session.reporter.closing("ask something; an empty line or Ctrl-D ends, /clear forgets the conversation");
    }
    for line in prompts(terminal) {
        let line = line?;
        match line.trim() {
            "" => break,
            "/clear" => speakers.iter_mut().for_each(|speaker| speaker.history.clear()),
            question => {
                let answers = speakers
                    .iter_mut()
                    .map(|speaker| answer(speaker, question, arguments))
                    .collect::<Result<Vec<_>>>()?;
                show(&speakers, &answers, session);
            }
        }
    }
    Ok(Status::Done)
}

fn prompts(terminal: bool) -> impl Iterator<Item = std::io::Result<String>> {
    let mut lines = std::io::stdin().lock().lines();
    std::iter::from_fn(move || {
        if terminal {
            let mut output = std::io::stdout();
            let _ = output.write_all(b"> ").and_then(|()| output.flush());
        }
        lines.next()
    })
}

fn answer(speaker: &mut Speaker, question: &str, arguments: &Arguments) -> Result<Answer> {
    speaker.history.push(Message { role: "user".into(), content: question.into() });
    let request = Request {
        sampling: Sampling { temperature: arguments.temperature, ..Sampling::default() },
        seed: speaker.history.len() as u64,
        ..Request::new(Prompt::Chat(speaker.history.clone()), arguments.max_tokens)
    };
    let mut found = None;
    speaker.engine.generate(&[request], &mut |_, answer| {
        found = Some(answer);
        ControlFlow::Continue(())
    })?;
    let answer = found.ok_or_else(|| anyhow::anyhow!("the engine gave no answer"))??;
    speaker.history.push(Message { role: "assistant".into(), content: answer.text.clone() });
    Ok(answer)
}

fn show(speakers: &[Speaker], answers: &[Answer], session: Session<'_>) {
    for (speaker, answer) in speakers.iter().zip(answers) {
        if speakers.len() > 1 {
            session.reporter.line(format!("[{}]", speaker.label));
        }
        session.reporter.line(answer.text.trim());
    }
    let texts: Vec<_> =
        speakers.iter().zip(answers).map(|(s, a)| serde_json::json!({"model": s.label, "text": a.text})).collect();
    session.reporter.result(serde_json::json!({"answers": texts}));
}
