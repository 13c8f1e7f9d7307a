//! `pipeline chat`: talk to a model, or to two side by side.

mod adapters;
mod conversation;
mod input;
mod instruction;
mod settings;
mod speaker;

use super::Session;
use crate::events::Event;
use crate::models::resolve;
use crate::outcome::Status;
use crate::reporter::Output;
use crate::terminal::{print_error, print_part};
use adapters::{NONE, Named};
use anyhow::Result;
use conversation::Conversation;
use espalier_inference::{EngineOptions, NativeEngine, Prompt, Request};
use espalier_model::{LoraAdapter, Model};
use espalier_train::Bytes;
use input::Lines;
use instruction::{HELP, Instruction};
pub use settings::Settings;
use speaker::{Answered, Speaker};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set while Ctrl-C means the answer, not the program.
pub(super) static ANSWERING: AtomicBool = AtomicBool::new(false);

/// Arguments of `pipeline chat`.
#[derive(Debug)]
pub struct Arguments {
    /// The model.
    pub model: String,
    /// Its adapters, each `DIR` or `NAME=DIR`.
    pub adapters: Vec<String>,
    /// A second model.
    pub compare: Option<String>,
    /// What comes before the conversation.
    pub system: Option<String>,
    /// How answers are written.
    pub settings: Settings,
    /// One question instead of a conversation.
    pub ask: Option<String>,
}

/// Opens a model by reference, with an adapter when one is given.
pub fn open_engine(reference: &str, adapter: Option<&Path>, session: Session<'_>) -> Result<NativeEngine> {
    open(reference, adapter, &session.engine_options(), session)
}

/// [`open_engine`] to write many texts.
pub fn open_for_texts(reference: &str, adapter: Option<&Path>, session: Session<'_>) -> Result<NativeEngine> {
    let engine = open(reference, adapter, &session.writing_options(), session)?;
    session.reporter.send(&Event::Note { stage: "engine".into(), message: engine.weight_words() });
    Ok(engine)
}

/// [`open_engine`] for one text at a time: the weights stay in the blocks of their file, unless the user asks for exactness.
pub fn open_for_one(reference: &str, adapter: Option<&Path>, session: Session<'_>) -> Result<NativeEngine> {
    let engine = open(reference, adapter, &session.one_text_options(), session)?;
    session.reporter.send(&Event::Note { stage: "engine".into(), message: engine.weight_words() });
    Ok(engine)
}

fn open(
    reference: &str,
    adapter: Option<&Path>,
    options: &EngineOptions,
    session: Session<'_>,
) -> Result<NativeEngine> {
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = adapter.map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    Ok(NativeEngine::load(&model, adapter.as_ref(), options)?)
}

/// `pipeline chat`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    arguments.settings.check()?;
    let adapters = arguments.adapters.iter().map(|adapter| Named::parse(adapter)).collect::<Result<_>>()?;
    let mut speakers = Vec::new();
    if let Some(other) = &arguments.compare {
        // Both keep the conversation, so that each has half of the memory.
        let half = Session { memory: session.memory.map(|all| Bytes(all.0 / 2)), ..session };
        speakers.push(Speaker::open(&arguments.model, adapters, half)?);
        speakers.push(Speaker::open(other, Vec::new(), half)?);
    } else {
        speakers.push(Speaker::open(&arguments.model, adapters, session)?);
    }
    let conversation = Conversation { system: arguments.system.clone(), ..Conversation::default() };
    let settings = arguments.settings.clone();
    let lines = if arguments.ask.is_some() { Lines::none() } else { Lines::open() };
    let terminal = lines.is_terminal();
    let mut chat = Chat { speakers, conversation, settings, asked: 0, changed: false, terminal, session };
    if let Some(question) = &arguments.ask {
        chat.ask(question.clone())?;
        return Ok(Status::Done);
    }
    chat.talk(lines)
}

struct Chat<'a> {
    speakers: Vec<Speaker>,
    conversation: Conversation,
    settings: Settings,
    /// Questions answered so far, those asked again included: each has a seed of its own.
    asked: u64,
    /// Whether the next answer may differ from the last one for another reason than its seed.
    changed: bool,
    terminal: bool,
    session: Session<'a>,
}

impl Chat<'_> {
    fn talk(&mut self, mut lines: Lines) -> Result<Status> {
        if self.terminal {
            self.session.reporter.closing("ask something; /help lists what else can be done, Ctrl-D ends");
        }
        let mut initial = String::new();
        while let Some(line) = lines.next(&std::mem::take(&mut initial))? {
            let done = Instruction::parse(&line).and_then(|instruction| match instruction {
                Some(Instruction::Quit) => Ok(None),
                Some(Instruction::Edit(None)) if self.terminal => self.conversation.last_question().map(Some),
                Some(instruction) => self.follow(instruction).map(|()| Some(String::new())),
                None => Ok(Some(String::new())),
            });
            match done {
                Ok(Some(text)) => initial = text,
                Ok(None) => break,
                // A person reads it and goes on; a script must know.
                Err(error) if self.terminal => print_error(&format!("error: {}", crate::outcome::error_text(&error))),
                Err(error) => return Err(error),
            }
        }
        Ok(Status::Done)
    }

    fn follow(&mut self, instruction: Instruction) -> Result<()> {
        let reporter = self.session.reporter;
        match instruction {
            Instruction::Ask(question) => self.ask(question)?,
            Instruction::Help => reporter.line(HELP.trim_end()),
            Instruction::Clear => self.conversation.turns.clear(),
            Instruction::System(text) => {
                self.conversation.system = text;
                self.changed = true;
            }
            Instruction::Adapter(None) => reporter.line(self.speakers[0].adapters()),
            Instruction::Adapter(Some(text)) => {
                self.speakers[0].choose(&text)?;
                self.changed = true;
                if self.terminal {
                    reporter.closing(format!("({} answers)", self.speakers[0].label()));
                }
            }
            Instruction::Regenerate => {
                let question = self.conversation.last_question()?;
                if self.settings.is_greedy() && !self.changed {
                    reporter.closing("(at temperature 0 the answer is the same: /temperature 0.8 gives others)");
                }
                self.ask_again(question)?;
            }
            Instruction::Edit(Some(question)) => {
                self.conversation.last_question()?;
                self.ask_again(question)?;
            }
            Instruction::Edit(None) => {
                return Err(crate::outcome::Failure::usage("/edit needs the question in its new form").into());
            }
            Instruction::Set(setting) => {
                self.settings.set(&setting)?;
                self.changed = true;
            }
            Instruction::Settings => {
                let adapter = self.speakers[0].adapter().unwrap_or(NONE);
                reporter.line(self.settings.text(adapter, self.conversation.system.as_deref()));
            }
            Instruction::Prompt => self.show_prompt()?,
            Instruction::Save(path) => self.conversation.save(&path)?,
            Instruction::Load(path) => self.conversation = Conversation::load(&path, self.speakers.len())?,
            Instruction::Quit => {}
        }
        Ok(())
    }

    /// Asks in the place of the last turn, which comes back where there is no answer.
    fn ask_again(&mut self, question: String) -> Result<()> {
        let last = self.conversation.turns.pop();
        let asked = self.ask(question);
        if asked.is_err() {
            self.conversation.turns.extend(last);
        }
        asked
    }

    /// Asks all models, shows what they write, and keeps it.
    fn ask(&mut self, question: String) -> Result<()> {
        let seed = self.settings.seed.wrapping_add(self.asked);
        let mut answers = Vec::with_capacity(self.speakers.len());
        for (index, speaker) in self.speakers.iter().enumerate() {
            let prompt = Prompt::Chat(self.conversation.messages(index, Some(&question)));
            let request = Request {
                sampling: self.settings.sampling.clone(),
                seed,
                ..Request::new(prompt, self.settings.max_tokens)
            };
            answers.push(self.hear(speaker, request)?);
        }
        self.asked += 1;
        self.changed = false;
        let said = |(speaker, answer): (&Speaker, &Answered)| serde_json::json!({"model": speaker.label(), "text": answer.text});
        let texts: Vec<_> = self.speakers.iter().zip(&answers).map(said).collect();
        self.session.reporter.result(serde_json::json!({"answers": texts}));
        self.conversation.push(question, answers.into_iter().map(|answer| answer.text).collect());
        Ok(())
    }

    /// Shows an answer as it is written.
    fn hear(&self, speaker: &Speaker, request: Request) -> Result<Answered> {
        let reporter = self.session.reporter;
        if self.speakers.len() > 1 {
            reporter.line(format!("[{}]", speaker.label()));
        }
        let streams = reporter.output() != Output::Json;
        let mut begun = false;
        let mut show = |text: &str| {
            // Models begin with spaces and lines that nobody wants to see.
            let text = if begun { text } else { text.trim_start() };
            if streams && !text.is_empty() {
                begun = true;
                print_part(text);
            }
        };
        ANSWERING.store(true, Ordering::Relaxed);
        let answered = speaker.answer(request, self.session.stop, &mut show);
        ANSWERING.store(false, Ordering::Relaxed);
        if begun {
            print_part("\n");
        }
        let answered = answered?;
        if answered.stopped && !self.terminal {
            return Err(crate::outcome::Interrupted.into());
        }
        if self.terminal && reporter.output() == Output::Human {
            print_error(&answered.figures());
        }
        Ok(answered)
    }

    /// The text that the models would read next, every special token as such.
    fn show_prompt(&self) -> Result<()> {
        for (index, speaker) in self.speakers.iter().enumerate() {
            if self.speakers.len() > 1 {
                self.session.reporter.line(format!("[{}]", speaker.label()));
            }
            let prompt = Prompt::Chat(self.conversation.messages(index, None));
            let tokens = speaker.tokens(Request::new(prompt, 1))?;
            let tokenizer = speaker.engine().tokenizer();
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.token_bytes(*token)).copied().collect();
            let text = String::from_utf8_lossy(&bytes);
            self.session.reporter.line(text.trim_end_matches('\n'));
            self.session.reporter.line(format!("({} tokens of {})", tokens.len(), speaker.engine().context()));
        }
        Ok(())
    }
}
