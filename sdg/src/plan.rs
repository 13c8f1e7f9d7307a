//! What there is to do: one job a row, known before the teacher is asked anything.

use std::collections::BTreeMap;

use espalier_inference::Message;
use espalier_taxonomy::{Chunk, ChunkSettings, Leaf, LeafKind, Seed, Tree, chunks};
use minijinja::context;
use minijinja::value::Value;
use serde::Serialize;

use crate::config::GenerateConfig;
use crate::error::SdgError;
use crate::held_out::HeldOut;
use crate::identity::{digest, hexadecimal, number};
use crate::prompts::{self, PromptFile};
use crate::shots::ShotChooser;
use crate::slots::{Drawn, draw_distinct};

/// How a row comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// The question is drawn from a template, the teacher answers it.
    Template,
    /// The teacher writes question and answer after the leaf's seeds.
    Invented,
    /// The same with the text that the question is about.
    Grounded,
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
            Self::Grounded => "grounded",
            Self::Document => "document",
            Self::Seed => "seed",
            Self::Passage => "passage",
        }
    }
}

/// One try at an answer: what the teacher sees; empty where no model is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ask {
    /// The conversation that the teacher goes on with.
    pub prompt: Vec<Message>,
    /// Numbers of the seeds in it.
    pub seed_ids: Vec<String>,
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
    /// The question, where it is known before; of a seed of several turns its script.
    pub question: Option<String>,
    /// The answer, where no model writes it.
    pub answer: Option<String>,
    /// What the teacher sees at each try; further tries see the last.
    pub asks: Vec<Ask>,
    /// Values that were drawn.
    pub slots: BTreeMap<String, serde_json::Value>,
    /// The text that the answer must rest on.
    pub context: Option<String>,
    /// Name of that text.
    pub document: Option<String>,
}

impl Job {
    /// What the teacher sees at a try.
    pub fn ask(&self, attempt: usize) -> &Ask {
        const NOTHING: &Ask = &Ask { prompt: Vec::new(), seed_ids: Vec::new() };
        self.asks.get(attempt).or(self.asks.last()).unwrap_or(NOTHING)
    }
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
    if let Some(seed) = leaf.seeds.iter().find(|seed| held_out.seed(seed)) {
        return Err(SdgError::Leak { leaf: leaf.id.clone(), line: seed.line });
    }
    let wanted = leaf.samples.unwrap_or(config.samples);
    let mut builder = Builder { leaf, config, jobs: Vec::new() };
    match (leaf.kind, &leaf.questions) {
        (_, Some(template)) => {
            let chooser = ShotChooser::new(leaf.seeds.iter().map(|seed| seed.question.as_str()));
            for drawn in draw_distinct(leaf, template, config.seed, wanted, &held_out)? {
                builder.template(drawn, &chooser)?;
            }
        }
        (LeafKind::Knowledge, None) => builder.knowledge(wanted, count_tokens)?,
        (LeafKind::FreeformSkill, None) => builder.invented(Flow::Invented, prompts::INVENTED, wanted)?,
        (LeafKind::GroundedSkill, None) => builder.invented(Flow::Grounded, prompts::GROUNDED, wanted)?,
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
            asks: Vec::new(),
            slots: BTreeMap::new(),
            context: None,
            document: None,
        }
    }

    fn ask(&self, file: PromptFile, shots: &[usize], own: Value) -> Result<Ask, SdgError> {
        let seeds: Vec<&Seed> = shots.iter().map(|&number| &self.leaf.seeds[number]).collect();
        let seed_ids = shots.iter().map(ToString::to_string).collect();
        Ok(Ask { prompt: prompts::fill(file, self.leaf, &seeds, own)?, seed_ids })
    }

    /// Seeds that are written like the question stand before it; tries after a wrong answer show others.
    fn template(&mut self, drawn: Drawn, chooser: &ShotChooser) -> Result<(), SdgError> {
        let mut job = self.job(Flow::Template);
        for attempt in 0..=self.config.retries {
            let shots = chooser.choose(&drawn.question, self.config.shots, attempt);
            job.asks.push(self.ask(prompts::TEMPLATE, &shots, context! { question => drawn.question.as_str() })?);
        }
        job.question = Some(drawn.question);
        job.slots = drawn.slots;
        self.jobs.push(job);
        Ok(())
    }

    fn invented(&mut self, flow: Flow, file: PromptFile, wanted: usize) -> Result<(), SdgError> {
        for _ in 0..wanted {
            let mut job = self.job(flow);
            for attempt in 0..=self.config.retries {
                let shots = self.seeds(job.index, attempt, self.config.shots.max(1));
                job.asks.push(self.ask(file, &shots, context! {})?);
            }
            self.jobs.push(job);
        }
        Ok(())
    }

    fn knowledge(&mut self, wanted: usize, count_tokens: &dyn Fn(&str) -> usize) -> Result<(), SdgError> {
        if self.config.knowledge_seeds {
            for (number, seed) in self.leaf.seeds.iter().enumerate() {
                let mut job = self.job(Flow::Seed);
                job.question = Some(seed.script().into_owned());
                job.answer = Some(seed.answer.clone());
                job.asks = vec![Ask { seed_ids: vec![number.to_string()], ..Ask::default() }];
                job.context.clone_from(&seed.context);
                self.jobs.push(job);
            }
        }
        let settings = ChunkSettings { max_tokens: self.config.chunk_tokens, ..ChunkSettings::default() };
        let pieces: Vec<(String, Chunk)> = self
            .leaf
            .documents
            .iter()
            .flat_map(|document| {
                let name =
                    document.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                chunks(document, &settings, count_tokens).into_iter().map(move |chunk| (name.clone(), chunk))
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
            self.document(&pieces[number % pieces.len()])?;
        }
        Ok(())
    }

    fn document(&mut self, (name, chunk): &(String, Chunk)) -> Result<(), SdgError> {
        let mut job = self.job(Flow::Document);
        for attempt in 0..=self.config.retries {
            // A seed's context with its own questions shows the form better than single pairs do.
            let shots = self.seeds(job.index, attempt, 3);
            job.asks.push(self.ask(prompts::DOCUMENT, &shots, context! { text => chunk.text.as_str() })?);
        }
        job.context = Some(chunk.text.clone());
        job.document = Some(name.clone());
        self.jobs.push(job);
        Ok(())
    }

    /// Distinct seeds for a try at a row, chosen by the generation's seed.
    fn seeds(&self, index: u64, attempt: usize, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.leaf.seeds.len()).collect();
        let key = |seed: usize| {
            let [from, index, attempt, seed] =
                [self.config.seed, index, attempt as u64, seed as u64].map(u64::to_le_bytes);
            number(&[b"seeds", &from, self.leaf.id.as_bytes(), &index, &attempt, &seed])
        };
        order.sort_by_key(|seed| key(*seed));
        order.truncate(count);
        order
    }
}
