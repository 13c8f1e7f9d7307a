//! Rows of files into the data of a run, with everything that is wrong with them.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use espalier_dataset::{DatasetError, Example, Problem, Record, Records};
use espalier_model::{ChatTemplate, LoraAdapter, Model};
use rayon::prelude::*;

use crate::data::{DataSource, Learned, RowKind};
use crate::encode::{Encoded, Encoder, Weighted};
use crate::tokens::{Sequence, Sequences};
use crate::{TrainConfig, TrainError};

/// Rows that are read before they are encoded together.
const CHUNK: usize = 4096;

/// Problems that are shown.
const SHOWN: usize = 20;

/// Everything that is wrong with the data; the first are kept in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataProblems {
    /// The first, as `FILE:LINE: what`.
    pub shown: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl DataProblems {
    fn add(&mut self, problem: impl fmt::Display) {
        self.count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(problem.to_string());
        }
    }
}

impl fmt::Display for DataProblems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown.join("\n"))?;
        match self.count - self.shown.len() {
            0 => Ok(()),
            more => write!(formatter, "\nand {more} more, {} in all", self.count),
        }
    }
}

/// How far reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataProgress {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of all files.
    pub of: u64,
    /// Rows read.
    pub rows: usize,
}

/// Reads and encodes the data of a run. Rows are encoded in parallel; the result does not depend on how many threads there
/// are, and only tokens stay in memory.
///
/// # Errors
/// All problems of the data together, each with its file and line; files that cannot be opened; a stop.
pub fn load(
    model: &Model,
    sources: &[DataSource],
    config: &TrainConfig,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(DataProgress),
) -> Result<Sequences, TrainError> {
    let mut collector = Collector::new(model, config)?;
    let size = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
    let mut progress =
        DataProgress { of: sources.iter().flat_map(|source| &source.files).map(size).sum(), ..DataProgress::default() };
    for source in sources {
        collector.source(&source.name, source.weight);
        let mut left = source.limit.unwrap_or(usize::MAX);
        for file in &source.files {
            if left == 0 {
                break;
            }
            collector.file(file.clone());
            let mut records = match Records::open(file, source.format) {
                Ok(records) => records,
                Err(DatasetError::File { action, path, source }) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DatasetError::File { action, path, source }.into());
                }
                Err(error) => {
                    collector.problems.add(error);
                    continue;
                }
            };
            let before = progress.bytes;
            loop {
                let chunk: Vec<_> = records.by_ref().take(CHUNK).collect();
                if chunk.is_empty() || left == 0 {
                    break;
                }
                if stop.load(Ordering::Relaxed) {
                    return Err(TrainError::Stopped);
                }
                progress.rows += chunk.len();
                progress.bytes = before + records.bytes_read();
                left -= collector.read(chunk, source, left);
                on_progress(progress);
            }
            progress.bytes = before + records.bytes();
        }
    }
    on_progress(progress);
    collector.finish()
}

/// The data of a run while it grows.
pub(crate) struct Collector<'a> {
    model: &'a Model,
    template: Option<ChatTemplate>,
    config: &'a TrainConfig,
    data: Sequences,
    leaves: HashMap<String, usize>,
    problems: DataProblems,
    /// Where each content stood first.
    seen: HashMap<String, (usize, usize)>,
    twins: Noted,
    dropped: Noted,
}

/// Something that happened to rows: how often, and to which first.
#[derive(Debug, Default)]
struct Noted {
    count: usize,
    first: String,
}

impl Noted {
    fn add(&mut self, first: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = first();
        }
        self.count += 1;
    }
}

impl<'a> Collector<'a> {
    /// With the chat template that the settings name.
    pub(crate) fn new(model: &'a Model, config: &'a TrainConfig) -> Result<Self, TrainError> {
        let template = template(model, config)?;
        let chat_template = template.as_ref().map(|template| template.source().to_owned());
        Ok(Self {
            model,
            template,
            config,
            data: Sequences { chat_template, ..Sequences::default() },
            leaves: HashMap::new(),
            problems: DataProblems::default(),
            seen: HashMap::new(),
            twins: Noted::default(),
            dropped: Noted::default(),
        })
    }

    /// What comes from here on is of this source.
    pub(crate) fn source(&mut self, name: &str, weight: f64) {
        self.data.sources.push(name.to_owned());
        self.data.mixing.push(weight);
    }

    /// What comes from here on stands in this file.
    pub(crate) fn file(&mut self, file: PathBuf) {
        self.data.files.push(file);
    }

    /// Reads, selects and encodes records; returns how many of at most `left` were taken.
    fn read(&mut self, chunk: Vec<Result<Record, Problem>>, source: &DataSource, left: usize) -> usize {
        let path = self.data.files.last().cloned().unwrap_or_default();
        let read = |record: Result<Record, Problem>| {
            let record = record?;
            let line = Some(record.line());
            record.example().map_err(|what| Problem { path: path.clone(), line, what })
        };
        let mut examples: Vec<Result<Example, Problem>> = chunk.into_par_iter().map(read).collect();
        let wanted = |example: &Example| source.kind.is_none_or(|kind: RowKind| kind.holds(example));
        examples.retain(|example| example.as_ref().map_or(true, wanted));
        examples.truncate(left);
        let taken = examples.len();
        self.add(examples, source.loss.unwrap_or(self.config.loss));
        taken
    }

    /// Encodes rows.
    pub(crate) fn add(&mut self, examples: Vec<Result<Example, Problem>>, learned: Learned) {
        let encoder = Encoder {
            tokenizer: self.model.tokenizer(),
            template: self.template.as_ref().unwrap_or(self.model.chat_template()),
            longest: self.config.max_sequence,
            over_long: self.config.over_long,
        };
        let file = self.data.files.len().saturating_sub(1);
        let path = &self.data.files[file];
        let encode = |example: Result<Example, Problem>| {
            let example = example?;
            match encoder.encode(&example, learned) {
                Ok(encoded) => {
                    let content = example.content_hash();
                    Ok((
                        Example { content: espalier_dataset::Content::Text(String::new()), ..example },
                        content,
                        encoded,
                    ))
                }
                Err(what) => Err(Problem { path: path.clone(), line: Some(example.line), what }),
            }
        };
        let encoded: Vec<_> = examples.into_par_iter().map(encode).collect();
        for result in encoded {
            match result {
                Err(problem) => self.problems.add(problem),
                Ok((example, content, encoded)) => self.push(example, content, encoded, file),
            }
        }
    }

    fn push(&mut self, example: Example, content: String, encoded: Encoded, file: usize) {
        let place = |file: usize, line: usize, data: &Sequences| format!("{}:{line}", data.files[file].display());
        if let Some(&(other, line)) = self.seen.get(&content) {
            let data = &self.data;
            self.twins
                .add(|| format!("{} says the same as {}", place(file, example.line, data), place(other, line, data)));
        } else {
            self.seen.insert(content, (file, example.line));
        }
        let leaf = example.leaf.map(|name| {
            let next = self.leaves.len();
            *self.leaves.entry(name).or_insert(next)
        });
        let pieces = match encoded {
            Encoded::Whole(pieces) => pieces,
            Encoded::Truncated(piece, _) => {
                self.data.truncated += 1;
                vec![piece]
            }
            Encoded::Dropped(tokens) => {
                let data = &self.data;
                self.dropped.add(|| format!("{} has {tokens} tokens", place(file, example.line, data)));
                return;
            }
        };
        let source = self.data.sources.len().saturating_sub(1);
        let several = pieces.len() > 1;
        for (number, Weighted { tokens, weights }) in pieces.into_iter().enumerate() {
            let id = if several { format!("{}.{}", example.id, number + 1) } else { example.id.clone() };
            self.data.rows.push(Sequence {
                tokens,
                weights,
                source,
                leaf,
                leaf_weight: example.leaf_weight,
                id,
                file,
                line: example.line,
                teacher: None,
            });
        }
    }

    /// The data, or everything that is wrong with it.
    pub(crate) fn finish(self) -> Result<Sequences, TrainError> {
        let Self { mut data, leaves, problems, twins, dropped, config, .. } = self;
        if problems.count > 0 {
            return Err(TrainError::Data(problems));
        }
        data.dropped = dropped.count;
        if data.rows.is_empty() {
            let why = match data.dropped {
                0 => "the data is empty".to_owned(),
                dropped => format!("all {dropped} are longer than max_sequence ({}); raise it", config.max_sequence),
            };
            return Err(TrainError::Empty(why));
        }
        let mut names: Vec<(String, usize)> = leaves.into_iter().collect();
        names.sort_by_key(|(_, index)| *index);
        data.leaves = names.into_iter().map(|(name, _)| name).collect();
        for (source, name) in data.sources.iter().enumerate() {
            if data.count(source).0 == 0 {
                data.warnings.push(format!("no row of {name} is left"));
            }
        }
        if dropped.count > 0 {
            data.warnings.push(format!(
                "{} longer than max_sequence ({}) left out; the first: {} (raise max_sequence, or set over_long to truncate)",
                rows(dropped.count),
                config.max_sequence,
                dropped.first
            ));
        }
        if twins.count > 0 {
            data.warnings.push(format!("{} an earlier one; the first: {}", repeats(twins.count), twins.first));
        }
        Ok(data)
    }
}

fn rows(count: usize) -> String {
    if count == 1 { "1 row is".to_owned() } else { format!("{count} rows are") }
}

fn repeats(count: usize) -> String {
    if count == 1 { "1 row repeats".to_owned() } else { format!("{count} rows repeat") }
}

/// The template that the settings name, else the one that the adapter to go on from was trained with; `None` for the model's.
fn template(model: &Model, config: &TrainConfig) -> Result<Option<ChatTemplate>, TrainError> {
    let (source, path) = match (&config.chat_template, &config.continue_from) {
        (Some(path), _) => {
            (Some(std::fs::read_to_string(path).map_err(TrainError::file(path, "read the chat template"))?), path)
        }
        // A path that leads nowhere is refused with the other settings.
        (None, Some(path)) if path.exists() => (LoraAdapter::load(path, model.config())?.chat_template, path),
        _ => return Ok(None),
    };
    let Some(source) = source else { return Ok(None) };
    let text = |id: Option<u32>| id.map_or("", |id| model.tokenizer().token_text(id));
    let template = ChatTemplate::new(Some(&source), text(model.tokenizer().bos()), text(model.tokenizer().eos()));
    template.map(Some).map_err(|error| TrainError::Model(error.in_file(path)))
}
