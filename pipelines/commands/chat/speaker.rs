//! A model that answers.

use super::adapters::{Adapters, Named, Wanted};
use crate::commands::Session;
use crate::events;
use crate::models::resolve;
use crate::outcome::Failure;
use anyhow::{Context, Result};
use espalier_inference::{Event, NativeEngine, Request, Service, ServiceOptions};
use espalier_model::{LoraAdapter, Model};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(50);

/// A model under way: its service keeps the keys and values of the conversation, so that a turn reads only what is added.
pub struct Speaker {
    name: String,
    model: Model,
    service: Service,
    adapters: Beside,
}

/// What stands beside the model.
enum Beside {
    /// Adapters that can be chosen.
    Chosen(Adapters),
    /// One that changed the weights themselves (`DoRA`): it stays.
    Fixed(Named),
}

/// An answer and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The text, as far as it was written.
    pub text: String,
    /// Whether Ctrl-C ended it.
    pub stopped: bool,
    tokens: usize,
    /// Until the first token, and from there to the last.
    seconds: (f64, f64),
}

impl Speaker {
    /// Opens a model with adapters, the first of which answers, for one text at a time: the weights stay in the blocks of
    /// their file, unless the user asks for exactness.
    pub fn open(reference: &str, adapters: Vec<Named>, session: Session<'_>) -> Result<Self> {
        let found = resolve(reference, session.reporter, session.stop)?;
        let model = Model::open(&found.path)?;
        let loaded = adapters.iter().map(|adapter| LoraAdapter::load(&adapter.path, model.config()));
        let loaded: Vec<LoraAdapter> = loaded.collect::<Result<_, _>>()?;
        let options = session.one_text_options();
        let (engine, adapters) = match (loaded.as_slice(), adapters.as_slice()) {
            ([adapter], [own]) if adapter.is_dora() => {
                (NativeEngine::load(&model, Some(adapter), &options)?, Beside::Fixed(own.clone()))
            }
            _ => {
                let named: Vec<_> = adapters.iter().map(|adapter| adapter.name.as_str()).zip(&loaded).collect();
                let engine = NativeEngine::load_with_adapters(&model, &named, &options)?;
                (engine, Beside::Chosen(Adapters::new(adapters)))
            }
        };
        let message = engine.weight_words();
        session.reporter.send(&events::Event::Note { stage: "engine".into(), message });
        let name = Path::new(reference).file_name();
        let name = name.map_or_else(|| reference.to_owned(), |name| name.to_string_lossy().into_owned());
        let service = Service::start(Arc::new(engine), ServiceOptions::default());
        Ok(Self { name, model, service, adapters })
    }

    /// What it is called: the model, and the adapter that answers.
    pub fn label(&self) -> String {
        match self.adapter() {
            Some(adapter) => format!("{} + {adapter}", self.name),
            None => self.name.clone(),
        }
    }

    /// The adapter that answers.
    pub fn adapter(&self) -> Option<&str> {
        match &self.adapters {
            Beside::Chosen(adapters) => adapters.chosen(),
            Beside::Fixed(own) => Some(&own.name),
        }
    }

    /// The adapters that there are, a line each.
    pub fn adapters(&self) -> String {
        match &self.adapters {
            Beside::Chosen(adapters) => adapters.text(),
            Beside::Fixed(own) => {
                format!("* {:18}  {} (DoRA: it is part of the weights)", own.name, own.path.display())
            }
        }
    }

    /// Takes another adapter from here on: by its name, by its path, or none. Where it is refused the one before stays.
    pub fn choose(&mut self, text: &str) -> Result<()> {
        let adapters = match &mut self.adapters {
            Beside::Chosen(adapters) => adapters,
            Beside::Fixed(own) if own.name == text => return Ok(()),
            Beside::Fixed(own) => {
                let name = &own.name;
                return Err(Failure::usage(format!(
                    "{name} is a DoRA adapter: it is part of the weights of this chat"
                ))
                .hint("begin a chat without it to choose another one")
                .into());
            }
        };
        match adapters.find(text)? {
            Wanted::None => adapters.choose(None),
            Wanted::Known(place) => adapters.choose(Some(place)),
            Wanted::New(new) => {
                let adapter = LoraAdapter::load(&new.path, self.model.config())?;
                let add = |engine: &mut NativeEngine| engine.add_adapter(&self.model, &new.name, &adapter);
                self.service.change(add).context("somebody else holds the engine")??;
                adapters.add(new);
            }
        }
        Ok(())
    }

    /// The tokens of a request's prompt, as the model reads them.
    pub fn tokens(&self, request: Request) -> Result<Vec<u32>> {
        Ok(self.engine().request_tokens(&self.addressed(request))?)
    }

    /// A request for the adapter that answers.
    fn addressed(&self, request: Request) -> Request {
        let adapter = match &self.adapters {
            Beside::Chosen(adapters) => adapters.chosen().map(str::to_owned),
            Beside::Fixed(_) => None,
        };
        Request { adapter, ..request }
    }

    /// The engine behind it.
    pub fn engine(&self) -> &NativeEngine {
        self.service.engine()
    }

    /// Writes an answer and shows its text as it comes. `stop` ends it; the flag is taken back.
    pub fn answer(&self, request: Request, stop: &AtomicBool, show: &mut dyn FnMut(&str)) -> Result<Answered> {
        let (sender, events) = mpsc::channel();
        let on_event = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let begun = Instant::now();
        let request = self.service.submit(self.addressed(request), 0, Box::new(on_event))?;
        let (mut text, mut tokens, mut first) = (String::new(), 0, None);
        let stopped = loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Token { text: part, .. }) => {
                    first.get_or_insert_with(|| begun.elapsed());
                    tokens += 1;
                    text.push_str(&part);
                    show(&part);
                }
                Ok(Event::Done(answer)) => {
                    show(answer.text.strip_prefix(text.as_str()).unwrap_or_default());
                    text = answer.text;
                    break false;
                }
                Ok(Event::Failed(error)) => return Err(error.into()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the engine ended without an answer"),
            }
            if stop.swap(false, Ordering::SeqCst) {
                request.cancel();
                break true;
            }
        };
        let all = begun.elapsed().as_secs_f64();
        let first = first.map_or(all, |first| first.as_secs_f64());
        Ok(Answered { text, stopped, tokens, seconds: (first, all - first) })
    }
}

impl Answered {
    /// Tokens and their rate, in a line.
    pub fn figures(&self) -> String {
        let stopped = if self.stopped { ", stopped" } else { "" };
        let (first, rest) = self.seconds;
        // The first token is the end of reading the prompt.
        let rate = match self.tokens {
            0 | 1 => String::new(),
            tokens => format!(", {:.1} a second", (tokens - 1) as f64 / rest.max(1e-9)),
        };
        format!("  ({} tokens{rate}, the first after {first:.2} s{stopped})", self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapters::NONE;
    use super::*;
    use crate::reporter::{Output, Reporter};
    use espalier_inference::Prompt;
    use espalier_model::LoraModule;

    const MODEL: &str = "tests/assets/model/stories260K.bin";

    /// A folder with an adapter of a strong effect for a model: `DoRA` where it says so.
    fn adapter_for(model: &str, dora: bool) -> Result<tempfile::TempDir> {
        let model = Model::open(Path::new(model))?;
        let query = model.tensor("blk.0.attn_q.weight")?;
        let (outputs, inputs) = (query.info().rows, query.info().columns);
        let magnitude = dora.then(|| vec![1.0; outputs]);
        let (a, b) = (vec![0.5; inputs], vec![0.5; outputs]);
        let module = LoraModule { a, b, inputs, outputs, rank: 1, alpha: 64.0, magnitude };
        let modules = [("blk.0.attn_q".to_owned(), module)].into();
        let adapter =
            LoraAdapter { rslora: false, base_model: String::new(), base_sha256: None, chat_template: None, modules };
        let folder = tempfile::tempdir()?;
        adapter.save_peft(folder.path(), model.config())?;
        Ok(folder)
    }

    fn said(speaker: &Speaker) -> Result<String> {
        let request = Request::new(Prompt::Text("Once upon a time".into()), 12);
        Ok(speaker.answer(request, &AtomicBool::new(false), &mut |_| {})?.text)
    }

    #[test]
    fn another_adapter_answers_and_a_refused_one_changes_nothing() -> Result<()> {
        let reporter = Reporter::new(Output::Quiet);
        let stop = AtomicBool::new(false);
        let session = Session {
            reporter: &reporter,
            stop: &stop,
            precision: espalier_kernels::Precision::F32,
            int8_texts: false,
            memory: None,
            color: false,
        };
        let mut speaker = Speaker::open(MODEL, Vec::new(), session)?;
        let base = said(&speaker)?;
        let poet = adapter_for(MODEL, false)?;
        speaker.choose(&format!("poet={}", poet.path().display()))?;
        let tuned = said(&speaker)?;
        assert_ne!(base, tuned);
        assert_eq!(speaker.label(), "stories260K.bin + poet");
        let (other, dora) = (adapter_for("tests/assets/architectures/llama.gguf", false)?, adapter_for(MODEL, true)?);
        let folders = [&other, &dora].map(|folder| folder.path().to_string_lossy().into_owned());
        let named = folders.each_ref().map(|folder| format!("x={folder}"));
        for refused in ["nobody", &named[0], &named[1]] {
            assert!(speaker.choose(refused).is_err(), "{refused}");
            assert_eq!((speaker.adapter(), said(&speaker)?.as_str()), (Some("poet"), tuned.as_str()), "{refused}");
        }
        speaker.choose(NONE)?;
        assert_eq!(said(&speaker)?, base);
        speaker.choose("poet")?;
        assert_eq!(said(&speaker)?, tuned);

        let mut fixed = Speaker::open(MODEL, vec![Named::parse(&named[1])?], session)?;
        assert!(fixed.choose(NONE).is_err() && fixed.choose("x").is_ok());
        assert!(!said(&fixed)?.is_empty() && fixed.label() == "stories260K.bin + x");
        Ok(())
    }

    #[test]
    fn figures_count_tokens_from_the_first_on() {
        let answered = |tokens, stopped| Answered { text: String::new(), stopped, tokens, seconds: (0.25, 2.0) };
        assert_eq!(answered(101, false).figures(), "  (101 tokens, 50.0 a second, the first after 0.25 s)");
        assert_eq!(answered(1, true).figures(), "  (1 tokens, the first after 0.25 s, stopped)");
    }
}
