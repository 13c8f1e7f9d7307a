//! What a model was asked and what it wrote, kept so that nothing is asked twice.

use std::ops::ControlFlow;
use std::path::Path;

use espalier_dataset::KeyedJournal;
use espalier_inference::judge::{Heard, Said};
use espalier_inference::{Answer, Engine, EngineError, Request};
use serde::{Deserialize, Serialize};

use crate::ask::is_about_the_item;
use crate::error::EvalError;

/// Hands over the answer of the request at an index; `Break` asks to stop.
pub type OnText<'a> = &'a mut dyn FnMut(usize, Result<Answer, EngineError>) -> ControlFlow<()>;

/// Something that writes texts: an engine, or what stands in for one.
pub trait Writer {
    /// Equal identities write equal texts.
    fn identity(&self) -> &str;

    /// Writes an answer for each request, handed over in any order.
    ///
    /// # Errors
    /// When nothing more can be written, whatever is asked.
    fn write(&self, requests: &[Request], on_text: OnText<'_>) -> Result<(), EngineError>;
}

impl Writer for Engine {
    fn identity(&self) -> &str {
        Self::identity(self)
    }

    fn write(&self, requests: &[Request], on_text: OnText<'_>) -> Result<(), EngineError> {
        self.generate(requests, on_text)
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The text; `None` where the request cannot be answered, such as a prompt beyond the context.
    pub text: Option<String>,
    /// Why there is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The first token and its alternatives with their log-probabilities, where these were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<(u32, f32)>,
}

impl Reply {
    fn new(answer: Answer) -> Self {
        let Said { text, first } = Said::from(answer);
        Self { text: Some(text), failure: None, first }
    }

    /// The same for whoever reads a rating from it.
    pub fn heard(&self) -> Heard {
        match &self.text {
            Some(text) => Ok(Said { text: text.clone(), first: self.first.clone() }),
            None => Err(self.failure.clone().unwrap_or_default()),
        }
    }
}

/// A writer with all that it wrote before.
pub struct Transcript<'a> {
    writer: &'a dyn Writer,
    /// Replies by [`Request::digest`].
    known: KeyedJournal<Reply>,
}

impl<'a> Transcript<'a> {
    /// With a file, texts are kept there and read from there; it may be shared by runs of any writers, one at a time.
    ///
    /// # Errors
    /// When the file cannot be opened or is none of ours.
    pub fn open(writer: &'a dyn Writer, file: Option<&Path>) -> Result<Self, EvalError> {
        let known = file.map_or_else(|| Ok(KeyedJournal::in_memory()), KeyedJournal::open)?;
        Ok(Self { writer, known })
    }

    /// Who writes.
    pub fn identity(&self) -> &str {
        self.writer.identity()
    }

    /// What the writer says to each request, or why it cannot follow it: a server may know no log-probabilities or no schema.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn probe(&mut self, requests: &[Request]) -> Result<Vec<Heard>, EvalError> {
        let mut heard = Vec::with_capacity(requests.len());
        for request in requests {
            match self.ask(std::slice::from_ref(request), &mut |_, _| ControlFlow::Continue(())) {
                Ok(replies) => heard.extend(replies.iter().map(Reply::heard)),
                Err(EvalError::Engine(error)) => heard.push(Err(error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(heard)
    }

    /// The replies to requests, in their order; those that are known are not asked again. `on_reply` hears of each further one
    /// and how many there are in all.
    ///
    /// # Errors
    /// What ends the writer, and [`EvalError::Interrupted`] when `on_reply` breaks; what was written until then is kept.
    pub fn ask(
        &mut self,
        requests: &[Request],
        on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<Reply>, EvalError> {
        let keys: Vec<String> = requests.iter().map(|request| request.digest(self.identity())).collect();
        let mut wanted: Vec<usize> =
            (0..requests.len()).filter(|&index| self.known.get(&keys[index]).is_none()).collect();
        // Equal requests are one.
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|&index| seen.insert(&keys[index]));
        let (total, mut done) = (requests.len(), requests.len() - wanted.len());
        let asked: Vec<Request> = wanted.iter().map(|&index| requests[index].clone()).collect();
        let mut failure = None;
        let known = &mut self.known;
        if !asked.is_empty() {
            self.writer.write(&asked, &mut |at, answer| {
                let reply = match answer {
                    Ok(answer) => Reply::new(answer),
                    Err(error) if is_about_the_item(&error) => {
                        Reply { failure: Some(error.to_string()), ..Reply::default() }
                    }
                    Err(error) => {
                        failure = Some(EvalError::from(error));
                        return ControlFlow::Break(());
                    }
                };
                if let Err(error) = known.put(&keys[wanted[at]], reply) {
                    failure = Some(error.into());
                    return ControlFlow::Break(());
                }
                done += 1;
                let flow = on_reply(done, total);
                if flow.is_break() && done < total {
                    failure = Some(EvalError::Interrupted { done, total });
                }
                flow
            })?;
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let replies: Vec<Reply> = keys.iter().filter_map(|key| self.known.get(key).cloned()).collect();
        if replies.len() < total {
            let missing = total - replies.len();
            return Err(EvalError::Unanswered { task: "judging".to_owned(), missing, total });
        }
        Ok(replies)
    }
}
