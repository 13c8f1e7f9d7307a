//! Blocks that have a model write columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_inference::{Message, Prompt, Request, Sampling};

use super::parse::{Parse, split_reasoning};
use crate::flow::ask::{Replied, Reply, TEACHER};
use crate::flow::prompt::FlowPrompt;
use crate::flow::sample::{Passed, Refused, Rejected, Sample, Writing};
use crate::identity::{digest, hexadecimal, number};

/// A block that has a model write columns.
#[derive(Clone, Debug)]
pub(crate) struct Llm {
    pub(crate) ask: Ask,
    /// The columns that are written.
    pub(crate) outputs: Vec<String>,
    pub(crate) parse: Parse,
    /// Answers for each row.
    pub(crate) samples: Samples,
    /// Further tries for an answer that cannot be read.
    pub(crate) retries: usize,
    /// Put into the column `num_samples` where a row has none, for prompts that ask for so many in one answer.
    pub(crate) num_samples: Option<i64>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// One prompt for all rows.
    Prompt(FlowPrompt),
    /// The prompt that the text of a column names.
    Choice { by: String, prompts: BTreeMap<String, FlowPrompt> },
    /// A column that is a conversation: a list of turns with `role` and `content`.
    Conversation { column: String },
}

/// Answers for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Samples {
    /// So many, each a row of its own.
    Count(usize),
    /// As many as the run is told ([`super::super::FlowOptions::scale`]), each a row of its own.
    Scaled,
    /// So many, together a list in one row.
    List(usize),
}

/// How a model writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generation {
    /// Name of the engine.
    pub(crate) engine: String,
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) max_tokens: usize,
    pub(crate) stop: Vec<String>,
    /// Goes into every seed of sampling.
    pub(crate) seed: u64,
    /// Alternatives to keep with each token.
    pub(crate) top_logprobs: usize,
}

/// A further try at the temperature 0 would give the same answer.
const RETRY_TEMPERATURE: f32 = 0.7;

impl Generation {
    pub(crate) const MAX_TOKENS: usize = 4096;

    /// The request for a row: the seed follows from the run's, the row, the block and the try alone. A greedy answer needs no
    /// seed, so that equal prompts are asked once.
    pub(crate) fn request(&self, turns: Vec<Message>, run_seed: u64, id: &str, block: &str, attempt: usize) -> Request {
        let temperature = if attempt > 0 && self.temperature <= 0.0 { RETRY_TEMPERATURE } else { self.temperature };
        let [run_seed, own, attempt] = [run_seed, self.seed, attempt as u64].map(u64::to_le_bytes);
        let seed = if temperature > 0.0 {
            number(&[b"flow", &run_seed, &own, id.as_bytes(), block.as_bytes(), &attempt])
        } else {
            0
        };
        Request {
            sampling: Sampling { top_p: self.top_p, ..Sampling::at_temperature(temperature) },
            seed,
            stop: self.stop.clone(),
            top_logprobs: self.top_logprobs,
            ..Request::new(Prompt::Chat(turns), self.max_tokens)
        }
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            engine: TEACHER.to_owned(),
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: Self::MAX_TOKENS,
            stop: Vec::new(),
            seed: 0,
            top_logprobs: 0,
        }
    }
}

/// The account of an answer.
pub(crate) fn writing(block: &str, request: &Request, reply: &Reply) -> Writing {
    let (reasoning, _) = split_reasoning(&reply.answer.text);
    Writing {
        block: block.to_owned(),
        engine: reply.engine.clone(),
        prompt_hash: prompt_hash(request),
        seed: request.seed,
        temperature: request.sampling.temperature,
        max_tokens: request.max_tokens,
        prompt_tokens: reply.answer.prompt_tokens,
        answer_tokens: reply.answer_tokens,
        raw: reply.answer.text.clone(),
        reasoning: reasoning.map(str::to_owned),
        logprobs: reply.answer.logprobs.clone(),
    }
}

/// Hexadecimal sha256 of a conversation, as rows have it.
fn prompt_hash(request: &Request) -> String {
    let text = match &request.prompt {
        Prompt::Chat(turns) => turns.iter().map(|turn| format!("{}\0{}\0", turn.role, turn.content)).collect(),
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => format!("{tokens:?}"),
    };
    hexadecimal(&digest(&[text.as_bytes()]))
}

impl Ask {
    /// The conversation for a row.
    pub(crate) fn turns(&self, sample: &Sample, own: &[(&str, serde_json::Value)]) -> Result<Vec<Message>, Refused> {
        match self {
            Self::Prompt(prompt) => prompt.fill(sample, own),
            Self::Choice { by, prompts } => {
                let chosen = sample.text(by).ok_or_else(|| Refused::missing(by))?;
                let prompt = prompts.get(chosen).ok_or_else(|| {
                    Refused::new("no choice", format!("`{by}` is {chosen:?}, and the block has no prompt for it"))
                })?;
                prompt.fill(sample, own)
            }
            Self::Conversation { column } => {
                let value = sample.columns.get(column).ok_or_else(|| Refused::missing(column))?;
                let turns: Option<Vec<Message>> = value.as_array().and_then(|turns| {
                    let turn = |turn: &serde_json::Value| {
                        Some(Message::new(turn.get("role")?.as_str()?, turn.get("content")?.as_str()?))
                    };
                    turns.iter().map(turn).collect()
                });
                turns.filter(|turns| !turns.is_empty()).ok_or_else(|| {
                    Refused::new("not a conversation", format!("`{column}` is not a list of `role` and `content`"))
                })
            }
        }
    }

    /// The prompts, for checks.
    pub(crate) fn prompts(&self) -> Vec<&FlowPrompt> {
        match self {
            Self::Prompt(prompt) => vec![prompt],
            Self::Choice { prompts, .. } => prompts.values().collect(),
            Self::Conversation { .. } => Vec::new(),
        }
    }
}

/// A block that writes, under way.
#[derive(Debug)]
pub(crate) struct LlmWork<'a> {
    block: &'a str,
    llm: &'a Llm,
    generation: &'a Generation,
    run_seed: u64,
    rows: Vec<Sample>,
    copies: usize,
    items: Vec<Item>,
    rejected: Vec<(usize, Rejected)>,
}

/// One answer that is wanted.
#[derive(Debug)]
struct Item {
    row: usize,
    copy: usize,
    turns: Arc<Vec<Message>>,
    attempt: usize,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Rows(Vec<super::parse::Row>, Arc<Writing>),
    Refused(Refused, Option<Arc<Writing>>),
}

impl<'a> LlmWork<'a> {
    /// `own` gives values that a row's prompt sees beside its columns.
    pub(crate) fn new(
        block: &'a str,
        llm: &'a Llm,
        generation: &'a Generation,
        run: (u64, usize),
        rows: Vec<Sample>,
        own: &dyn Fn(usize) -> Vec<(&'static str, serde_json::Value)>,
    ) -> Self {
        let (run_seed, scale) = run;
        let copies = match llm.samples {
            Samples::Count(count) | Samples::List(count) => count,
            Samples::Scaled => scale,
        };
        let mut work = Self { block, llm, generation, run_seed, rows, copies, items: Vec::new(), rejected: Vec::new() };
        for (row, sample) in work.rows.iter_mut().enumerate() {
            if let Some(count) = llm.num_samples.filter(|_| !sample.columns.contains_key("num_samples")) {
                sample.put("num_samples", count.into());
            }
            match llm.ask.turns(sample, &own(row)).map(Arc::new) {
                Ok(turns) => work.items.extend((0..copies).map(|copy| Item {
                    row,
                    copy,
                    turns: Arc::clone(&turns),
                    attempt: 0,
                    outcome: None,
                })),
                Err(Refused { category, detail, .. }) => {
                    work.rejected.push((row, Rejected::new(sample.clone(), block, category, detail)));
                }
            }
        }
        work
    }

    pub(crate) fn engine(&self) -> &'a str {
        &self.generation.engine
    }

    pub(crate) fn is_done(&self) -> bool {
        self.items.iter().all(|item| item.outcome.is_some())
    }

    /// What is still to be asked, each with its number.
    pub(crate) fn pending(&self) -> Vec<(usize, Request)> {
        let open = self.items.iter().enumerate().filter(|(_, item)| item.outcome.is_none());
        open.map(|(number, item)| (number, self.request(item))).collect()
    }

    fn request(&self, item: &Item) -> Request {
        let id = self.rows[item.row].child_id(self.block, item.copy);
        let turns = item.turns.as_ref().clone();
        let request = self.generation.request(turns, self.run_seed, &id, self.block, item.attempt);
        Request { constraint: self.llm.parse.constraint(), ..request }
    }

    pub(crate) fn answer(&mut self, number: usize, replied: Replied) {
        let request = self.request(&self.items[number]);
        let (llm, item) = (self.llm, &mut self.items[number]);
        let reply = match replied {
            Ok(reply) => reply,
            Err(refused) => {
                item.outcome = Some(Outcome::Refused(refused, None));
                return;
            }
        };
        let writing = Arc::new(writing(self.block, &request, &reply));
        let (_, said) = split_reasoning(&reply.answer.text);
        match llm.parse.rows(said, &llm.outputs) {
            Ok(rows) => item.outcome = Some(Outcome::Rows(rows, writing)),
            Err(_) if item.attempt < llm.retries => item.attempt += 1,
            Err(reason) => {
                let refused = Refused::new("unreadable answer", reason);
                item.outcome = Some(Outcome::Refused(refused, Some(writing)));
            }
        }
    }

    /// The rows, in the order of those given and of their answers; to be called when nothing is pending.
    pub(crate) fn finish(mut self) -> Passed {
        let mut passed = Passed::default();
        let mut refused = std::mem::take(&mut self.rejected).into_iter().peekable();
        let mut items = std::mem::take(&mut self.items).into_iter().peekable();
        for (row, sample) in self.rows.iter().enumerate() {
            while let Some((_, rejected)) = refused.next_if(|(number, _)| *number == row) {
                passed.rejected.push(rejected);
            }
            let mut own = Vec::new();
            while let Some(item) = items.next_if(|item| item.row == row) {
                own.push(item);
            }
            match self.llm.samples {
                Samples::List(count) if count > 1 => self.list(sample, own, &mut passed),
                _ => self.rows(sample, own, &mut passed),
            }
        }
        passed
    }

    fn rows(&self, sample: &Sample, items: Vec<Item>, passed: &mut Passed) {
        for item in items {
            let copy = if self.copies == 1 { sample.clone() } else { sample.child(self.block, item.copy) };
            match item.outcome {
                Some(Outcome::Rows(rows, writing)) => {
                    for (ordinal, row) in rows.into_iter().enumerate() {
                        let mut made = copy.child(self.block, ordinal);
                        for (column, value) in row {
                            made.columns.insert(column.clone(), value);
                            made.written.insert(column, Arc::clone(&writing));
                        }
                        passed.kept.push(made);
                    }
                }
                Some(Outcome::Refused(refused, writing)) => passed.rejected.push(self.refused(copy, refused, writing)),
                None => {}
            }
        }
    }

    /// All answers together in one row.
    fn list(&self, sample: &Sample, items: Vec<Item>, passed: &mut Passed) {
        let mut made = sample.child(self.block, 0);
        let (mut values, mut how) = (Vec::new(), None);
        for item in items {
            match item.outcome {
                Some(Outcome::Rows(rows, writing)) => {
                    values.extend(rows.into_iter().flatten().map(|(_, value)| value));
                    how = Some(writing);
                }
                Some(Outcome::Refused(refused, writing)) => {
                    passed.rejected.push(self.refused(made, refused, writing));
                    return;
                }
                None => {}
            }
        }
        for column in self.llm.outputs.iter().take(1) {
            made.columns.insert(column.clone(), values.clone().into());
            made.written.extend(how.clone().map(|how| (column.clone(), how)));
        }
        passed.kept.push(made);
    }

    /// What the model wrote stays with the row that it was to be in.
    fn refused(&self, mut sample: Sample, refused: Refused, writing: Option<Arc<Writing>>) -> Rejected {
        for column in self.llm.outputs.iter().take(1) {
            sample.written.extend(writing.clone().map(|how| (column.clone(), how)));
        }
        Rejected::new(sample, self.block, refused.category, refused.detail)
    }
}
