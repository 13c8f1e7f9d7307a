//! Skills tree to rows: the teacher writes, checks decide, every row keeps its origin.

use super::StageContext;
use crate::content::hash_bytes;
use crate::models::ResolvedModel;
use crate::outcome::{Failure, Interrupted};
use crate::servers;
use anyhow::{Context, Result};
use espalier_dataset::{Journal, Row, Verdict, drop_duplicates, write_messages_jsonl, write_parquet};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;
use espalier_sdg::{GenerateConfig, GenerateEvent, LeafGeneration, SdgError};
use espalier_taxonomy::{Leaf, Severity, Tree};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when the rows that a tree gives would come out otherwise.
pub const VERSION: u32 = 2;

/// Configuration of `generate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateStage {
    /// Skills tree: a folder or one leaf.
    pub taxonomy: PathBuf,
    /// Rows wanted a leaf, where the leaf does not say.
    #[serde(default = "default_samples")]
    pub samples: usize,
    /// Seed of all draws.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Seed examples shown to the teacher.
    #[serde(default = "default_shots")]
    pub shots: usize,
    /// Further tries for an answer that failed its check.
    #[serde(default = "default_retries")]
    pub retries: usize,
    /// Temperature of these further tries; the first one takes the likeliest tokens.
    #[serde(default = "default_temperature")]
    pub temperature: f32,
    /// Longest answer in tokens.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// Longest chunk of a document in tokens.
    #[serde(default = "default_chunk_tokens")]
    pub chunk_tokens: usize,
}

fn default_samples() -> usize {
    40
}
fn default_seed() -> u64 {
    7
}
fn default_shots() -> usize {
    4
}
fn default_retries() -> usize {
    1
}
fn default_temperature() -> f32 {
    0.7
}
fn default_max_tokens() -> usize {
    128
}
fn default_chunk_tokens() -> usize {
    300
}

impl GenerateStage {
    /// The defaults over a tree.
    pub fn over(taxonomy: impl Into<PathBuf>) -> Self {
        Self {
            taxonomy: taxonomy.into(),
            samples: default_samples(),
            seed: default_seed(),
            shots: default_shots(),
            retries: default_retries(),
            temperature: default_temperature(),
            max_tokens: default_max_tokens(),
            chunk_tokens: default_chunk_tokens(),
        }
    }

    fn flows(&self) -> GenerateConfig {
        GenerateConfig {
            samples: self.samples,
            seed: self.seed,
            shots: self.shots,
            retries: self.retries,
            retry_temperature: self.temperature,
            max_tokens: self.max_tokens,
            chunk_tokens: self.chunk_tokens,
            ..GenerateConfig::default()
        }
    }
}

/// Which engine writes.
#[derive(Debug, Clone, Copy)]
pub enum EngineChoice<'a> {
    /// Ours, in this process.
    Native,
    /// OpenAI-compatible servers: their URLs with commas between them.
    Servers(&'a str),
}

impl<'a> From<Option<&'a str>> for EngineChoice<'a> {
    fn from(urls: Option<&'a str>) -> Self {
        urls.map_or(Self::Native, Self::Servers)
    }
}

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Places {
    /// Folder of `rows.parquet` and `messages.jsonl`.
    pub rows: PathBuf,
    /// Folder of the journals of unfinished leaves.
    pub work: PathBuf,
}

/// Reads a tree; its errors become one message with every place.
pub fn read_tree(path: &Path) -> Result<Tree> {
    espalier_taxonomy::read_tree(path).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::usage(format!("the skills tree {} has errors:\n{}", path.display(), lines.join("\n"))).into()
    })
}

/// Reads a tree whose templates, checks and test answers hold too: what would fail in the middle of a run fails before it.
pub fn read_checked_tree(path: &Path) -> Result<Tree> {
    let mut tree = read_tree(path)?;
    let (errors, notes): (Vec<_>, Vec<_>) =
        espalier_sdg::lint_tree(&tree).into_iter().partition(|finding| finding.severity == Severity::Error);
    if errors.is_empty() {
        tree.notes.extend(notes);
        return Ok(tree);
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Failure::usage(format!("the skills tree {} has errors:\n{}", path.display(), lines.join("\n"))).into())
}

/// Writes the rows of every leaf; a leaf whose journal is complete is not written again.
pub fn run(
    config: &GenerateStage,
    teacher: &ResolvedModel,
    choice: EngineChoice<'_>,
    places: &Places,
    context: &StageContext<'_>,
) -> Result<String> {
    let tree = read_checked_tree(&config.taxonomy)?;
    for note in &tree.notes {
        context.note(note.to_string());
    }
    let model = Model::open(&teacher.path)?;
    let engine = match choice {
        EngineChoice::Native => {
            let options = EngineOptions { precision: context.precision, ..EngineOptions::default() };
            Engine::Native(NativeEngine::load(&model, None, &options)?)
        }
        EngineChoice::Servers(urls) => servers::open(urls, None)?,
    };
    let mut rows = Vec::new();
    let mut journals = Vec::new();
    for leaf in &tree.leaves {
        context.check_stop()?;
        let journal = places.work.join(format!("{}.jsonl", journal_key(leaf, &tree, config, engine.identity())));
        rows.extend(leaf_rows(leaf, &tree, config, &engine, &model, &journal, context)?);
        journals.push(journal);
    }
    drop_duplicates(&mut rows);
    let accepted = rows.iter().filter(|row| row.verdict == Verdict::Accepted).count();
    if accepted == 0 {
        return Err(Failure::usage("no row passed its checks: there is nothing to train on")
            .hint("the warnings above say what was wrong with the answers; give more seeds, or a stronger `teacher:`")
            .into());
    }
    write_parquet(&places.rows.join("rows.parquet"), &rows)?;
    write_messages_jsonl(&places.rows.join("messages.jsonl"), &rows)?;
    remove_others(&places.work, &journals);
    let leaves = if tree.leaves.len() == 1 { "leaf" } else { "leaves" };
    Ok(format!("{accepted} of {} rows passed their checks, {} {leaves}", rows.len(), tree.leaves.len()))
}

fn leaf_rows(
    leaf: &Leaf,
    tree: &Tree,
    config: &GenerateStage,
    engine: &Engine,
    model: &Model,
    journal: &Path,
    context: &StageContext<'_>,
) -> Result<Vec<Row>> {
    if let Some(folder) = journal.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut journal = Journal::open(journal)?;
    let count = |text: &str| model.tokenizer().encode(text, espalier_model::SpecialTokens::AsText).len();
    let flows = config.flows();
    let generation = LeafGeneration { tree, leaf, config: &flows, count_tokens: &count, stop: context.stop };
    let answer: espalier_sdg::Answerer<'_> = &mut |requests, on_answer| {
        engine.generate_with_events(requests, on_answer, &mut |event| {
            servers::report(event, context.stage, context.reporter);
        })
    };
    let identity = engine.identity();
    let made =
        espalier_sdg::generate_with(&generation, identity, answer, &mut journal, &mut |event| report(event, context));
    match made {
        Err(SdgError::Interrupted { .. }) => Err(Interrupted.into()),
        made => Ok(made?),
    }
}

fn report(event: GenerateEvent, context: &StageContext<'_>) {
    match event {
        GenerateEvent::Progress { leaf, done, total, accepted } => {
            context.progress(&leaf, done, total, "rows", format!("{accepted} kept"));
        }
        GenerateEvent::Note { leaf, message } => context.note(format!("{leaf}: {message}")),
        GenerateEvent::Empty { leaf, message } => context.warn(format!("{leaf}: {message}")),
    }
}

/// What a leaf's rows depend on: a changed leaf, test question anywhere in the tree, prompt, model or configuration starts
/// a new journal.
fn journal_key(leaf: &Leaf, tree: &Tree, config: &GenerateStage, engine: &str) -> String {
    let flows = serde_json::to_string(config).unwrap_or_default();
    let held_out: Vec<_> =
        tree.leaves.iter().flat_map(|leaf| &leaf.test).map(|item| (&item.context, &item.question)).collect();
    let held_out = serde_json::to_string(&held_out).unwrap_or_default();
    let prompts = espalier_sdg::prompts_digest();
    let key = format!("{VERSION}\n{}\n{}\n{flows}\n{engine}\n{prompts}\n{held_out}", leaf.id, leaf.hash);
    hash_bytes(key.as_bytes())[..24].to_owned()
}

fn remove_others(folder: &Path, keep: &[PathBuf]) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| !keep.contains(&entry.path())) {
        let _ = fs::remove_file(entry.path());
    }
}
