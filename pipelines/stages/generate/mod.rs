//! Skills tree to rows: the teacher writes, checks decide, every row keeps its origin.

mod flows;
mod probe;
mod review;

pub use self::probe::{Probe, probe, words};

use self::flows::{Flows, Surroundings};
use self::review::Reviewer;
use super::StageContext;
use crate::content::hash_bytes;
use crate::embedder::{Embedder, check_same_meaning};
use crate::models::ResolvedModel;
use crate::outcome::{Failure, Interrupted};
use crate::servers;
use anyhow::{Context, Result};
use espalier_dataset::quality::{Masked, Rule, mask_row, reject_over_quota};
use espalier_dataset::{Journal, Origin, Row, Verdict, Versions, write_messages_jsonl, write_parquet};
use espalier_inference::{Engine, EngineOptions, NativeEngine};
use espalier_model::Model;
use espalier_sdg::flow::{SourceSettings, sources};
use espalier_sdg::{GenerateConfig, GenerateEvent, LeafGeneration, SdgError};
use espalier_taxonomy::{ChunkSettings, Leaf, Severity, Tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when the rows that a tree gives would come out otherwise.
pub const VERSION: u32 = 5;

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
    /// Tokens of whole sentences that a flow's chunk repeats of the one before it.
    #[serde(default)]
    pub chunk_overlap: usize,
    /// The flow of leaves without a question template that do not name their own: `direct`, a shipped one, or a path.
    #[serde(default = "default_flow")]
    pub flow: String,
    /// Who judges in flows: a model, or the URL of a server; the teacher otherwise.
    #[serde(default)]
    pub judge: Option<String>,
    /// A model that makes vectors of texts: quotas choose rows by them, and rows that say the same as another one are refused.
    #[serde(default)]
    pub embedder: Option<String>,
    /// Cosine of these vectors from which two rows say the same; 0 refuses none.
    #[serde(default)]
    pub same_meaning: Option<f32>,
    /// How often a flow may use each source of a leaf until the leaf has its rows.
    #[serde(default = "default_rounds")]
    pub rounds: usize,
    /// Answers for each row where a block of a flow says `scaled`.
    #[serde(default = "default_scale")]
    pub scale: usize,
    /// Rules that flows' rows must not break; an empty list looks at none.
    #[serde(default = "default_rules")]
    pub rules: Vec<Rule>,
    /// Similarity from which two rows are twins; 0 looks for none.
    #[serde(default = "default_near_duplicates")]
    pub near_duplicates: f64,
    /// Files of benchmark items, one JSON object a line: no accepted row holds one of them.
    #[serde(default)]
    pub decontaminate: Vec<PathBuf>,
    /// Whether e-mail addresses, telephone numbers, keys and the like are masked in rows.
    #[serde(default)]
    pub mask_pii: bool,
    /// Tokens of prompts and answers that flows may cost.
    #[serde(default)]
    pub budget_tokens: Option<usize>,
    /// Minutes that flows may take.
    #[serde(default)]
    pub budget_minutes: Option<f64>,
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
fn default_flow() -> String {
    flows::DIRECT.to_owned()
}
fn default_rounds() -> usize {
    3
}
fn default_scale() -> usize {
    10
}
fn default_rules() -> Vec<Rule> {
    Rule::ALL.to_vec()
}
fn default_near_duplicates() -> f64 {
    0.8
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
            chunk_overlap: 0,
            flow: default_flow(),
            judge: None,
            embedder: None,
            same_meaning: None,
            rounds: default_rounds(),
            scale: default_scale(),
            rules: default_rules(),
            near_duplicates: default_near_duplicates(),
            decontaminate: Vec::new(),
            mask_pii: false,
            budget_tokens: None,
            budget_minutes: None,
        }
    }

    /// The judge, where it is a model on this machine and not a server.
    pub fn judge_model(&self) -> Option<&str> {
        self.judge.as_deref().filter(|judge| !judge.contains("://"))
    }

    /// Who judges; `model` is what [`Self::judge_model`] was found to be. A judge that is the teacher itself is not loaded twice.
    pub fn judged_by<'a>(&'a self, teacher: &ResolvedModel, model: Option<&'a ResolvedModel>) -> JudgeChoice<'a> {
        match (model, &self.judge) {
            (Some(model), _) if model.sha256 == teacher.sha256 => JudgeChoice::Teacher,
            (Some(model), _) => JudgeChoice::Model(model),
            (None, Some(urls)) => JudgeChoice::Servers(urls),
            (None, None) => JudgeChoice::Teacher,
        }
    }

    /// How flows cut documents.
    fn chunks(&self) -> ChunkSettings {
        ChunkSettings { max_tokens: self.chunk_tokens, overlap: self.chunk_overlap }
    }

    /// The first choice that cannot be, with the remedy.
    fn validate(&self) -> Result<(), Failure> {
        let refuse = |what: String| Err(Failure::usage(format!("generate: {what}")));
        if !(0.0..=1.0).contains(&self.near_duplicates) {
            return refuse(format!("`near_duplicates` is {}; choose 0 to 1", self.near_duplicates));
        }
        if let Err(reason) = check_same_meaning(self.embedder.as_deref(), self.same_meaning) {
            return refuse(reason);
        }
        if self.budget_minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes.is_finite())) {
            return refuse("`budget_minutes` is not above 0; choose minutes, or leave it out".to_owned());
        }
        if self.rounds == 0 || self.scale == 0 {
            return refuse("`rounds` and `scale` are 1 or more".to_owned());
        }
        Ok(())
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

/// Who judges in flows.
#[derive(Debug, Clone, Copy)]
pub enum JudgeChoice<'a> {
    /// The engine that writes.
    Teacher,
    /// Another model, in this process.
    Model(&'a ResolvedModel),
    /// OpenAI-compatible servers: their URLs with commas between them.
    Servers(&'a str),
}

/// The engines of a generation.
#[derive(Debug, Clone, Copy)]
pub struct Engines<'a> {
    /// Which one writes.
    pub teacher: EngineChoice<'a>,
    /// Which one judges.
    pub judge: JudgeChoice<'a>,
    /// Which one makes vectors.
    pub embedder: Option<&'a ResolvedModel>,
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

/// Writes the rows of every leaf. Leaves of flows run side by side, the others one after another; what was finished or answered
/// before is not asked again.
pub fn run(
    config: &GenerateStage,
    teacher: &ResolvedModel,
    engines: Engines<'_>,
    places: &Places,
    context: &StageContext<'_>,
) -> Result<String> {
    let options = context.writing_options();
    let opened = open(config, teacher, engines, &options, context)?;
    let Opened { tree, model, engine, judge } = &opened;
    let flows = Flows::of_tree(tree, config)?;
    let mut reviewer = Reviewer::new(config, embedder(config, engines.embedder, &options.packed(), context)?)?;
    let embedder = reviewer.embedder_identity();
    let mut by_leaf: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
    let mut journals = Vec::new();
    for leaf in tree.leaves.iter().filter(|leaf| flows.of(leaf).is_none()) {
        context.check_stop()?;
        let journal = places.work.join(format!("{}.jsonl", journal_key(leaf, tree, config, engine.identity())));
        let mut rows = leaf_rows(leaf, tree, config, engine, model, &journal, context)?;
        or_interrupted(reviewer.compare(&mut rows, 0))?;
        by_leaf.insert(&leaf.id, rows);
        journals.push(journal);
    }
    let answers = places.work.join(flows::ANSWERS);
    let made = flows.run(&opened.surroundings(config, context, false), &answers, &mut reviewer)?;
    journals.push(answers);
    for outcome in made.leaves {
        if let Some(leaf) = tree.leaf(&outcome.leaf) {
            by_leaf.insert(&leaf.id, outcome.rows);
        }
    }
    let mut rows: Vec<Row> = tree.leaves.iter().filter_map(|leaf| by_leaf.remove(leaf.id.as_str())).flatten().collect();
    let quota = |id: &str| {
        let leaf = tree.leaf(id).filter(|leaf| flows.of(leaf).is_some())?;
        Some(leaf.samples.unwrap_or(config.samples))
    };
    reject_over_quota(&mut rows, &quota, |texts| reviewer.vectors(texts))?;
    if let Some(warning) = reviewer.warning() {
        context.warn(warning);
    }
    if config.mask_pii {
        mask(&mut rows, context);
    }
    for row in &mut rows {
        row.leaf_weight = tree.leaf(&row.leaf).and_then(|leaf| leaf.weight);
    }
    let accepted = rows.iter().filter(|row| row.verdict == Verdict::Accepted).count();
    if accepted == 0 {
        return Err(nothing_to_train_on(&rows, places)?.into());
    }
    write_parquet(&places.rows.join("rows.parquet"), &rows)?;
    write_messages_jsonl(&places.rows.join("messages.jsonl"), &rows)?;
    let count = rows.len();
    let origin = Origin {
        taxonomy: Some(tree_hash(tree)),
        engines: [Some(engine), judge.as_ref()]
            .into_iter()
            .flatten()
            .map(|used| used.identity().to_owned())
            .chain(embedder)
            .collect(),
        flows: flows.versions(),
    };
    let version = Versions::new(&places.rows).add(rows.into_iter().map(Ok), origin)?;
    remove_others(&places.work, &journals);
    let leaves = if tree.leaves.len() == 1 { "leaf" } else { "leaves" };
    Ok(format!(
        "{accepted} of {count} rows passed their checks, {} {leaves}, version {}",
        tree.leaves.len(),
        version.version
    ))
}

/// What a generation works with.
struct Opened {
    tree: Tree,
    /// The teacher, for its tokenizer.
    model: Model,
    /// Writes.
    engine: Engine,
    /// Judges in flows, where that is not the engine that writes.
    judge: Option<Engine>,
}

impl Opened {
    fn surroundings<'a>(
        &'a self,
        config: &'a GenerateStage,
        context: &'a StageContext<'a>,
        probe: bool,
    ) -> Surroundings<'a> {
        let Self { tree, model, engine, judge } = self;
        Surroundings { config, tree, engine, judge: judge.as_ref(), model, context, probe }
    }
}

fn embedder<'a>(
    config: &GenerateStage,
    model: Option<&ResolvedModel>,
    options: &EngineOptions,
    context: &StageContext<'a>,
) -> Result<Option<Embedder<'a>>> {
    let embedder = model.map(|model| Embedder::load(model, options, context.stop)).transpose()?;
    if embedder.as_ref().is_some_and(|embedder| embedder.threshold(config.same_meaning).is_none()) {
        context.note(
            "the embedder is a model that writes: its vectors choose the rows of a quota; `same_meaning` says from which cosine \
             on they refuse rows too",
        );
    }
    Ok(embedder)
}

/// Opens tree, teacher and engines; says the tree's notes.
fn open(
    config: &GenerateStage,
    teacher: &ResolvedModel,
    engines: Engines<'_>,
    options: &EngineOptions,
    context: &StageContext<'_>,
) -> Result<Opened> {
    config.validate()?;
    let tree = read_checked_tree(&config.taxonomy)?;
    for note in &tree.notes {
        context.note(note.to_string());
    }
    let model = Model::open(&teacher.path)?;
    let native = |model: &Model, options: &EngineOptions| -> Result<Engine> {
        Ok(Engine::Native(NativeEngine::load(model, None, options)?))
    };
    let engine = match engines.teacher {
        EngineChoice::Native => native(&model, options)?,
        EngineChoice::Servers(urls) => servers::open(urls, None)?,
    };
    let judge = match engines.judge {
        JudgeChoice::Teacher => None,
        JudgeChoice::Model(judge) => {
            // Its ratings are probabilities.
            Some(native(&Model::open(&judge.path)?, &options.packed())?)
        }
        JudgeChoice::Servers(urls) => Some(servers::open(urls, None)?),
    };
    Ok(Opened { tree, model, engine, judge })
}

/// Writes the rows that the flows of a tree start from, one JSON object a line; gives their number.
pub fn write_sources(config: &GenerateStage, teacher: &ResolvedModel, file: &Path) -> Result<usize> {
    config.validate()?;
    let tree = read_checked_tree(&config.taxonomy)?;
    let model = Model::open(&teacher.path)?;
    let count = |text: &str| model.tokenizer().encode(text, espalier_model::SpecialTokens::AsText).len();
    let settings = SourceSettings { chunks: config.chunks(), seed: config.seed, ..SourceSettings::default() };
    let mut found = Vec::new();
    for leaf in &tree.leaves {
        found.append(&mut sources(&tree, leaf, &settings, &count)?);
    }
    espalier_dataset::write_atomically(file, |out| {
        for sample in &found {
            serde_json::to_writer(&mut *out, &sample.columns)?;
            std::io::Write::write_all(out, b"\n")?;
        }
        Ok(())
    })
    .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(found.len())
}

/// Name and hash of each flow that a tree's rows come from.
pub fn flow_versions(config: &GenerateStage, tree: &Tree) -> Result<Vec<String>> {
    Ok(Flows::of_tree(tree, config)?.versions())
}

/// The failure of a run without a usable row. What was refused is written, so that a person can look at it.
fn nothing_to_train_on(rows: &[Row], places: &Places) -> Result<Failure> {
    let refused = places.rows.join("refused.parquet");
    let hint = if rows.is_empty() {
        "the warnings above say why nothing was asked".to_owned()
    } else {
        write_parquet(&refused, rows)?;
        format!(
            "`pipeline data show {}` shows what was refused and why; give more seeds, another `flow:`, or a stronger `teacher:`",
            refused.display()
        )
    };
    Ok(Failure::usage("no row passed its checks: there is nothing to train on").hint(hint))
}

fn mask(rows: &mut [Row], context: &StageContext<'_>) {
    let mut masked = Masked::new();
    for row in rows.iter_mut() {
        for (kind, count) in mask_row(row) {
            *masked.entry(kind).or_default() += count;
        }
    }
    let counts: Vec<String> = masked.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
    if !counts.is_empty() {
        context.note(format!("masked in rows: {}", counts.join(", ")));
    }
}

/// One hash for all leaves: their ids and contents, in order.
fn tree_hash(tree: &Tree) -> String {
    let text: String = tree.leaves.iter().map(|leaf| format!("{}\n{}\n", leaf.id, leaf.hash)).collect();
    hash_bytes(text.as_bytes())
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
    let mut flows = config.flows();
    flows.retry_temperature = leaf.temperature.map_or(flows.retry_temperature, |temperature| temperature as f32);
    let generation = LeafGeneration { tree, leaf, config: &flows, count_tokens: &count, stop: context.stop };
    let answer: espalier_sdg::Answerer<'_> = &mut |requests, on_answer| {
        engine.generate_with_events(requests, on_answer, &mut |event| {
            servers::report(event, context.stage, context.reporter);
        })
    };
    let identity = engine.identity();
    let made =
        espalier_sdg::generate_with(&generation, identity, answer, &mut journal, &mut |event| report(event, context));
    or_interrupted(made)
}

/// A stop from outside as what every stage makes of it, not as a failure.
fn or_interrupted<T>(made: Result<T, SdgError>) -> Result<T> {
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
/// a new journal. A changed weight does not: rows get it when they are written.
fn journal_key(leaf: &Leaf, tree: &Tree, config: &GenerateStage, engine: &str) -> String {
    let flows = serde_json::to_string(config).unwrap_or_default();
    let held_out: Vec<_> =
        tree.leaves.iter().flat_map(|leaf| &leaf.test).map(|item| (&item.context, &item.question)).collect();
    let held_out = serde_json::to_string(&held_out).unwrap_or_default();
    let prompts = espalier_sdg::prompts_digest();
    let leaf_hash = leaf.hash_of_rows();
    let key = format!("{VERSION}\n{}\n{leaf_hash}\n{flows}\n{engine}\n{prompts}\n{held_out}", leaf.id);
    hash_bytes(key.as_bytes())[..24].to_owned()
}

fn remove_others(folder: &Path, keep: &[PathBuf]) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| !keep.contains(&entry.path())) {
        let _ = fs::remove_file(entry.path());
    }
}
