//! Rows of knowledge in the two forms that `InstructLab` trains on.
//!
//! - **Phase 0.7** teaches the document: the context stands before the question, and all of it is learned (`unmask`).
//! - **Phase 1.0** teaches to answer from documents: each question with its context among others, or with others alone
//!   (after RAFT, Zhang and others 2024, arXiv:2403.10131), and the lines of phase 0.7 again, against forgetting.
//!
//! Both have tasks beside the questions: to write what the flow made of a chunk. instructlab-sdg draws without a seed and
//! takes every other text of the column for a distractor, so that lines "without" the golden text hold its spell-checked twin
//! or an overlapping neighbour. Here all draws come from the seed and the row's id, and a distractor is never made from the
//! same chunk, never contains the golden text or is contained in it, and never contains the answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use super::AuxiliaryInstructions;
use crate::draw::Draw;
use crate::duplicates::normalized;
use crate::error::DatasetError;
use crate::formats::{TrainingLine, WeightedTurn, labels};
use crate::row::{Row, Turn};

/// How often the golden text is among the documents.
const GOLDEN_SHARE: f64 = 0.4;
/// Documents before a question.
const DOCUMENTS: usize = 4;
/// Draws of a distractor before all are tried in order.
const TRIES: usize = 16;
/// An answer of fewer letters stands in texts by chance.
const ANSWER_LETTERS: usize = 12;

/// The texts that questions are asked of, by leaf, from which distractors are drawn.
#[derive(Clone, Debug)]
pub struct KnowledgeForms {
    seed: u64,
    instructions: AuxiliaryInstructions,
    leaves: BTreeMap<String, Contexts>,
}

#[derive(Clone, Debug, Default)]
struct Contexts {
    texts: Vec<Context>,
    seen: HashSet<String>,
    /// The row that carries the task of writing a context.
    tasks: HashMap<String, String>,
}

#[derive(Clone, Debug)]
struct Context {
    text: String,
    normalized: String,
    chunk: Option<String>,
}

impl KnowledgeForms {
    /// Collects the contexts of rows. What it holds are the contexts, each once, not the rows.
    ///
    /// # Errors
    /// What the reading of a row says.
    pub fn gather(
        rows: impl IntoIterator<Item = Result<Row, DatasetError>>,
        seed: u64,
        instructions: AuxiliaryInstructions,
    ) -> Result<Self, DatasetError> {
        let mut leaves: BTreeMap<String, Contexts> = BTreeMap::new();
        for row in rows {
            let row = row?;
            let Some(text) = context(&row) else { continue };
            let contexts = leaves.entry(row.leaf.clone()).or_default();
            if contexts.seen.insert(text.to_owned()) {
                let context = Context { normalized: normalized(text), text: text.to_owned(), chunk: chunk_of(&row) };
                contexts.texts.push(context);
                if instruction_kind(&row).is_some() {
                    contexts.tasks.insert(text.to_owned(), row.id);
                }
            }
        }
        Ok(Self { seed, instructions, leaves })
    }

    /// The lines of a row in phase 0.7.
    pub fn phase07(&self, row: &Row) -> Vec<TrainingLine> {
        let task = self.task(row).map(|line| TrainingLine { unmask: true, ..line });
        std::iter::once(Self::pretraining(row)).chain(task).collect()
    }

    /// The lines of a row in phase 1.0.
    pub fn phase10(&self, row: &Row) -> Vec<TrainingLine> {
        [self.raft(row), Self::pretraining(row)].into_iter().chain(self.task(row)).collect()
    }

    /// The context, the question and the answer, all learned.
    fn pretraining(row: &Row) -> TrainingLine {
        let before = context(row).map(|text| format!("{text}\n\n")).unwrap_or_default();
        let metadata = metadata(row, "document_knowledge_qa");
        TrainingLine { messages: asked(row, &before), metadata, id: format!("{}.p07", row.id), unmask: true }
    }

    /// The question behind documents, of which one may be its own.
    fn raft(&self, row: &Row) -> TrainingLine {
        let documents = self.documents(row);
        let pieces: Vec<String> = documents.iter().map(|text| format!("Document:\n{text}\n\n")).collect();
        let before = if pieces.is_empty() { String::new() } else { format!("{}\n\n", pieces.join("\n")) };
        let metadata = metadata(row, &format!("document_knowledge_qa_raft_p{GOLDEN_SHARE}"));
        TrainingLine { messages: asked(row, &before), metadata, id: format!("{}.raft", row.id), unmask: false }
    }

    /// The documents before a question: its own and distractors, or distractors alone; its own where there is no other.
    fn documents(&self, row: &Row) -> Vec<&str> {
        let (Some(golden), Some(contexts)) = (context(row), self.leaves.get(&row.leaf)) else { return Vec::new() };
        let mut draw = Draw::new(self.seed, &[b"raft", row.id.as_bytes()]);
        let with_golden = draw.chance(GOLDEN_SHARE);
        let wanted = if with_golden { DOCUMENTS - 1 } else { DOCUMENTS };
        let mut chosen = contexts.distractors(row, golden, wanted, &mut draw);
        if with_golden || chosen.is_empty() {
            // The stored copy lives as long as the others.
            let own = contexts.texts.iter().find(|context| context.text == golden);
            chosen.extend(own.map(|context| context.text.as_str()));
        }
        draw.shuffle(&mut chosen);
        chosen
    }

    /// The task to write a context from its chunk; only the first row of a context has it.
    fn task(&self, row: &Row) -> Option<TrainingLine> {
        let (kind, chunk, text) = (instruction_kind(row)?, row.chunk.as_deref()?, context(row)?);
        let phrasings = self.instructions.0.get(kind)?;
        if self.leaves.get(&row.leaf)?.tasks.get(text)? != &row.id {
            return None;
        }
        let mut draw = Draw::new(self.seed, &[b"auxiliary", row.id.as_bytes()]);
        let instruction = phrasings.get(draw.below(phrasings.len().max(1)))?;
        let messages =
            vec![Turn::new("user", format!("{chunk}\n\n{instruction}")).into(), Turn::new("assistant", text).into()];
        let mut metadata = metadata(row, &format!("document_{kind}"));
        metadata.remove("sdg_document");
        Some(TrainingLine { messages, metadata, id: format!("{}.task", row.id), unmask: false })
    }
}

impl Contexts {
    /// Different texts in which a row's answer is not to be found.
    fn distractors(&self, row: &Row, golden: &str, wanted: usize, draw: &mut Draw) -> Vec<&str> {
        let (golden, chunk) = (normalized(golden), chunk_of(row));
        let answer = row.turns.iter().rev().find(|turn| turn.role == "assistant").map(|turn| normalized(&turn.content));
        let answer =
            answer.filter(|answer| answer.chars().filter(|letter| letter.is_alphanumeric()).count() >= ANSWER_LETTERS);
        let fits = |other: &Context| {
            let twin = other.chunk.is_some() && other.chunk == chunk;
            let holds = other.normalized.contains(&golden) || golden.contains(&other.normalized);
            !twin && !holds && !answer.as_ref().is_some_and(|answer| other.normalized.contains(answer))
        };
        let mut chosen: Vec<usize> = Vec::with_capacity(wanted);
        if self.texts.len() > wanted * 4 {
            for _ in 0..TRIES {
                let at = draw.below(self.texts.len());
                if chosen.len() < wanted && !chosen.contains(&at) && fits(&self.texts[at]) {
                    chosen.push(at);
                }
            }
        }
        if chosen.len() < wanted {
            let mut order: Vec<usize> = (0..self.texts.len()).collect();
            draw.shuffle(&mut order);
            for at in order {
                if chosen.len() < wanted && !chosen.contains(&at) && fits(&self.texts[at]) {
                    chosen.push(at);
                }
            }
        }
        chosen.into_iter().map(|at| self.texts[at].text.as_str()).collect()
    }
}

/// The text that a row's question is asked of.
fn context(row: &Row) -> Option<&str> {
    row.context.as_deref().or(row.chunk.as_deref()).filter(|text| !text.trim().is_empty())
}

/// What tells the chunk that a row's context was made from.
fn chunk_of(row: &Row) -> Option<String> {
    row.chunk_hash.clone().or_else(|| row.chunk.as_deref().map(normalized))
}

/// The kind of a context that was made from the chunk.
fn instruction_kind(row: &Row) -> Option<&str> {
    row.context.as_ref()?;
    row.context_kind.as_deref().filter(|kind| *kind != "base_document")
}

/// The turns with `before` set before the first question.
fn asked(row: &Row, before: &str) -> Vec<WeightedTurn> {
    let mut turns: Vec<WeightedTurn> = row.turns.iter().cloned().map(WeightedTurn::from).collect();
    if let Some(question) = turns.iter_mut().find(|turn| turn.role == "user") {
        question.content.insert_str(0, before);
    }
    turns
}

fn metadata(row: &Row, dataset: &str) -> Map<String, Value> {
    let mut metadata = Map::new();
    let mut add = |name: &str, text: Option<&str>| {
        metadata.extend(text.map(|text| (name.to_owned(), Value::from(text))));
    };
    add("sdg_document", context(row));
    add("domain", row.domain.as_deref());
    add("dataset", Some(dataset));
    if row.context_kind.is_some() {
        add("raw_document", row.chunk.as_deref());
        add("dataset_type", row.context_kind.as_deref());
    }
    for (name, value) in labels(row) {
        metadata.entry(name).or_insert(value);
    }
    metadata
}
