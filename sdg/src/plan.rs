//! What there is to do: one job a row, known before the teacher is asked anything.

use std::collections::BTreeMap;

use espalier_model::Message;
use espalier_taxonomy::{Chunk, Leaf, LeafKind, Seed, Tree, chunks};
use serde::Serialize;
use serde_json::Value;

use crate::config::GenerateConfig;
use crate::error::SdgError;
use crate::held_out::HeldOut;
use crate::identity::{digest, hexadecimal, number};
use crate::slots::draw_distinct;

/// How a row comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// The question is drawn from a template, the teacher answers it.
    Template,
    /// The teacher writes question and answer after the leaf's seeds.
    Invented,
    /// The teacher writes question and answer on a chunk of a document.
    Document,
    /// A seed of the leaf as it stands.
    Seed,
    /// What a document says under a heading, as it stands.
    Passage,
}

impl Flow {
    /// The word in a row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Invented => "invented",
            Self::Document => "document",
            Self::Seed => "seed",
            Self::Passage => "passage",
        }
    }
}

/// One row to be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// The row's id.
    pub id: String,
    /// The leaf.
    pub leaf: String,
    /// Number of the row in its leaf.
    pub index: u64,
    /// How it comes about.
    pub flow: Flow,
    /// The question, where it is known before.
    pub question: Option<String>,
    /// The answer, where no model writes it.
    pub answer: Option<String>,
    /// What the teacher sees; empty where no model is asked.
    pub prompt: Vec<Message>,
    /// Values that were drawn.
    pub slots: BTreeMap<String, Value>,
    /// Numbers of the seeds in the prompt.
    pub seed_ids: Vec<String>,
    /// The text that the answer must rest on.
    pub context: Option<String>,
    /// Name of that text.
    pub document: Option<String>,
}

/// Every row to be made of every leaf, in the order of leaves and rows. A pure function of its arguments.
///
/// # Errors
/// As [`plan_leaf`].
pub fn plan(tree: &Tree, config: &GenerateConfig, count_tokens: &dyn Fn(&str) -> usize) -> Result<Vec<Job>, SdgError> {
    let mut jobs = Vec::new();
    for leaf in &tree.leaves {
        jobs.append(&mut plan_leaf(tree, leaf, config, count_tokens)?);
    }
    Ok(jobs)
}

/// The rows of one leaf of a tree, in order. The tests of the whole tree are held out.
///
/// # Errors
/// Templates that cannot be filled in, and seeds that are held-out test questions.
pub fn plan_leaf(
    tree: &Tree,
    leaf: &Leaf,
    config: &GenerateConfig,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Result<Vec<Job>, SdgError> {
    config.validate().map_err(SdgError::Config)?;
    let held_out = HeldOut::of_leaf(tree, &leaf.id);
    if let Some(seed) = leaf.seeds.iter().find(|seed| held_out.question(seed.context.as_deref(), &seed.question)) {
        return Err(SdgError::Leak { leaf: leaf.id.clone(), line: seed.line });
    }
    let wanted = leaf.samples.unwrap_or(config.samples);
    let mut builder = Builder { leaf, config, jobs: Vec::new() };
    match (leaf.kind, &leaf.questions) {
        (_, Some(template)) => {
            let drawn = draw_distinct(leaf, template, config.seed, wanted, &held_out)?;
            for question in drawn {
                builder.template(question.question, question.slots);
            }
        }
        (LeafKind::Knowledge, None) => builder.knowledge(wanted, count_tokens),
        (LeafKind::FreeformSkill | LeafKind::GroundedSkill, None) => builder.invented(wanted),
    }
    Ok(builder.jobs)
}

struct Builder<'a> {
    leaf: &'a Leaf,
    config: &'a GenerateConfig,
    jobs: Vec<Job>,
}

impl Builder<'_> {
    fn job(&self, flow: Flow) -> Job {
        let index = self.jobs.len() as u64;
        let seed = self.config.seed.to_le_bytes();
        let parts: [&[u8]; 4] = [self.leaf.id.as_bytes(), flow.name().as_bytes(), &index.to_le_bytes(), &seed];
        Job {
            id: hexadecimal(&digest(&parts)[..8]),
            leaf: self.leaf.id.clone(),
            index,
            flow,
            question: None,
            answer: None,
            prompt: Vec::new(),
            slots: BTreeMap::new(),
            seed_ids: Vec::new(),
            context: None,
            document: None,
        }
    }

    /// The first seeds serve every question, so that the teacher computes them once.
    fn template(&mut self, question: String, slots: BTreeMap<String, Value>) {
        let mut job = self.job(Flow::Template);
        for (number, seed) in self.leaf.seeds.iter().enumerate().take(self.config.shots) {
            job.prompt.push(message("user", &asked(seed)));
            job.prompt.push(message("assistant", &seed.answer));
            job.seed_ids.push(number.to_string());
        }
        job.prompt.push(message("user", &question));
        job.question = Some(question);
        job.slots = slots;
        self.jobs.push(job);
    }

    fn invented(&mut self, wanted: usize) {
        for _ in 0..wanted {
            let mut job = self.job(Flow::Invented);
            let mut shots = String::new();
            for number in self.seeds(job.index, self.config.shots.max(1)) {
                let seed = &self.leaf.seeds[number];
                shots.push_str(&pair(&asked(seed), &seed.answer));
                job.seed_ids.push(number.to_string());
            }
            let task = format!(
                "{}\n\n{shots}Write one more question of this kind and its answer, in the same form.",
                self.leaf.task_description.trim()
            );
            job.prompt = vec![message("user", &task)];
            self.jobs.push(job);
        }
    }

    fn knowledge(&mut self, wanted: usize, count_tokens: &dyn Fn(&str) -> usize) {
        if self.config.knowledge_seeds {
            for (number, seed) in self.leaf.seeds.iter().enumerate() {
                let mut job = self.job(Flow::Seed);
                job.question = Some(seed.question.clone());
                job.answer = Some(seed.answer.clone());
                job.seed_ids = vec![number.to_string()];
                job.context.clone_from(&seed.context);
                self.jobs.push(job);
            }
        }
        let pieces: Vec<(String, Chunk)> = self
            .leaf
            .documents
            .iter()
            .flat_map(|document| {
                let name =
                    document.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                chunks(document, self.config.chunk_tokens, count_tokens)
                    .into_iter()
                    .map(move |chunk| (name.clone(), chunk))
            })
            .collect();
        if self.config.knowledge_documents {
            for (name, chunk) in pieces.iter().filter(|(_, chunk)| !chunk.heading.is_empty()) {
                let mut job = self.job(Flow::Passage);
                let heading = chunk.heading.rsplit(" > ").next().unwrap_or(&chunk.heading);
                job.question = Some(format!("What does the document say about this: {heading}?"));
                job.answer = Some(chunk.text.clone());
                job.document = Some(name.clone());
                self.jobs.push(job);
            }
        }
        for number in 0..if pieces.is_empty() { 0 } else { wanted } {
            self.document(&pieces[number % pieces.len()]);
        }
    }

    fn document(&mut self, (name, chunk): &(String, Chunk)) {
        let mut job = self.job(Flow::Document);
        // A seed's context with its own questions shows the form better than single pairs do.
        for number in self.seeds(job.index, 3) {
            let seed = &self.leaf.seeds[number];
            let context = seed.context.as_deref().unwrap_or_default();
            job.prompt.push(message("user", &request(context)));
            job.prompt.push(message("assistant", pair(&seed.question, &seed.answer).trim()));
            job.seed_ids.push(number.to_string());
        }
        job.prompt.push(message("user", &request(&chunk.text)));
        job.context = Some(chunk.text.clone());
        job.document = Some(name.clone());
        self.jobs.push(job);
    }

    /// Distinct seeds for a row, chosen by the generation's seed.
    fn seeds(&self, index: u64, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.leaf.seeds.len()).collect();
        let key = |number_of_seed: usize| {
            let seed = self.config.seed.to_le_bytes();
            number(&[b"seeds", &seed, self.leaf.id.as_bytes(), &index.to_le_bytes(), &number_of_seed.to_le_bytes()])
        };
        order.sort_by_key(|number_of_seed| key(*number_of_seed));
        order.truncate(count);
        order
    }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

/// A seed's question with its context above, as evaluation asks it too.
fn asked(seed: &Seed) -> String {
    seed.context.as_ref().map_or_else(|| seed.question.clone(), |context| format!("{context}\n\n{}", seed.question))
}

fn pair(question: &str, answer: &str) -> String {
    format!("Question: {question}\nAnswer: {answer}\n\n")
}

fn request(text: &str) -> String {
    format!("Write one question about this text and its answer.\n\n{}", text.trim())
}
