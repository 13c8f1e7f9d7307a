//! The folder that `ilab data generate` leaves behind: data of each leaf, recipes, and what is mixed by them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::{AuxiliaryInstructions, KnowledgeForms, Recipe, RecipeFile, RecipeMetadata, SamplingSize};
use crate::atomic::rename_durably;
use crate::convert::train_test;
use crate::draw;
use crate::error::DatasetError;
use crate::formats::{Problem, TrainingLine};
use crate::mixing::{MixSummary, mix_recipe};
use crate::row::{Row, Split, Verdict};
use crate::versions::RowSource;

/// How the folder is made.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    /// The seed of all draws.
    pub seed: u64,
    /// The system prompt of every line.
    pub system_prompt: String,
    /// Instructions of the tasks beside the questions.
    pub instructions: AuxiliaryInstructions,
    /// How much of each leaf of skills is mixed; instructlab-sdg takes 30 lines.
    pub skill_lines: SamplingSize,
    /// Whether lines are drawn with replacement, as instructlab-sdg does.
    pub legacy: bool,
    /// The seed examples that `test.jsonl` holds; without them there is none.
    pub seeds: Option<Vec<SeedPair>>,
}

/// A seed example as `test.jsonl` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPair {
    /// The question, with the text that it is about below it.
    pub user: String,
    /// The answer.
    pub assistant: String,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FolderSummary {
    /// Files of leaves.
    pub leaf_files: u64,
    /// Rows that were left out because a turn of them says nothing.
    pub empty: u64,
    /// What `knowledge_train_msgs.jsonl` became, where there is knowledge.
    pub knowledge: Option<MixSummary>,
    /// What `skills_train_msgs.jsonl` became.
    pub skills: Option<MixSummary>,
    /// Lines of `train.jsonl`.
    pub train: u64,
    /// Lines of `test.jsonl`: seed examples.
    pub test: u64,
    /// Lines of `held_out.jsonl`: the rows that are held out.
    pub held_out: u64,
}

/// Writes the folder, which must not exist: `node_datasets/`, `knowledge_recipe.yaml`, `skills_recipe.yaml`,
/// `knowledge_train_msgs.jsonl`, `skills_train_msgs.jsonl`, `messages.jsonl`, `train.jsonl`, `test.jsonl` and
/// `held_out.jsonl`. It has its name once all of it is there.
///
/// # Errors
/// When rows cannot be read, none was accepted, or a file cannot be written.
pub fn write_folder(rows: &RowSource, options: &FolderOptions, out: &Path) -> Result<FolderSummary, DatasetError> {
    let refuse =
        |what: &str| DatasetError::Problem(Problem { path: out.to_path_buf(), line: None, what: what.to_owned() });
    if out.exists() {
        return Err(refuse("this exists already; name another folder, or remove it"));
    }
    let mut part = out.file_name().unwrap_or_default().to_owned();
    part.push(".part");
    let part = out.with_file_name(part);
    // What a kill left behind is of no use.
    let _ = std::fs::remove_dir_all(&part);
    let summary = fill(rows, options, &part).and_then(|summary| {
        if summary.leaf_files == 0 {
            return Err(refuse(
                "no row was accepted for training, so that nothing can be written; `pipeline data funnel` says why",
            ));
        }
        rename_durably(&part, out).map_err(DatasetError::file("write", out))?;
        Ok(summary)
    });
    if summary.is_err() {
        let _ = std::fs::remove_dir_all(&part);
    }
    summary
}

fn fill(rows: &RowSource, options: &FolderOptions, part: &Path) -> Result<FolderSummary, DatasetError> {
    let folder = part.join("node_datasets");
    std::fs::create_dir_all(&folder).map_err(DatasetError::file("create the folder", &folder))?;
    // A leaf weighs what its first row says.
    let mut weights: BTreeMap<String, f64> = BTreeMap::new();
    let knowledge = accepted(rows).filter(|row| row.as_ref().map_or(true, |row| row.kind == "knowledge"));
    let forms = KnowledgeForms::gather(knowledge, options.seed, options.instructions.clone())?;
    for row in accepted(rows) {
        let row = row?;
        weights.entry(row.leaf).or_insert(row.leaf_weight.unwrap_or(1.0));
    }
    let names = file_names(&weights.keys().cloned().collect());
    let mut summary = FolderSummary::default();
    let mut files = LeafFiles { folder, open: None, written: BTreeSet::new() };
    let [mut messages, mut train, mut test, mut held_out] =
        ["messages", "train", "test", "held_out"].map(|name| Lines::create(part, name));
    for SeedPair { user, assistant } in options.seeds.iter().flatten() {
        test.write(&json!({"system": options.system_prompt, "user": user, "assistant": assistant}))?;
    }
    for row in rows.rows() {
        let row = row?;
        if row.verdict != Verdict::Accepted {
            continue;
        }
        if TrainingLine::of_row(&row).is_empty() {
            summary.empty += 1;
            continue;
        }
        if row.split == Split::HeldOut {
            held_out.write(&train_test(&row, &options.system_prompt))?;
            continue;
        }
        let Some(name) = names.get(&row.leaf) else { continue };
        let mut whole = TrainingLine::of_row(&row);
        train.write(&train_test(&row, &options.system_prompt))?;
        messages.write(&whole)?;
        if row.kind == "knowledge" {
            forms.phase07(&row).iter().try_for_each(|line| files.write(&format!("{name}_p07"), line))?;
            forms.phase10(&row).iter().try_for_each(|line| files.write(&format!("{name}_p10"), line))?;
        } else {
            whole.set_system(&options.system_prompt);
            files.write(name, &whole)?;
        }
    }
    (summary.train, summary.test, summary.held_out) = (train.count, test.count, held_out.count);
    for lines in [messages, train, test, held_out] {
        lines.finish()?;
    }
    let written = files.finish()?;
    summary.leaf_files = written.len() as u64;
    let metadata = RecipeMetadata { sys_prompt: Some(options.system_prompt.clone()) };
    let weights: BTreeMap<&str, f64> =
        weights.iter().filter_map(|(leaf, weight)| Some((names.get(leaf)?.as_str(), *weight))).collect();
    let file = |name: &String| listed(name, options.skill_lines, &weights);
    let recipe = |wanted: fn(&str) -> bool| Recipe {
        datasets: written.iter().filter(|name| wanted(name)).map(file).collect(),
        metadata: metadata.clone(),
    };
    let mixed = |recipe: Recipe, name: &str| {
        if recipe.datasets.is_empty() {
            return Ok(None);
        }
        recipe.write(&part.join(format!("{name}_recipe.yaml")))?;
        mix_recipe(&recipe, part, options.legacy, &part.join(format!("{name}_train_msgs.jsonl"))).map(Some)
    };
    summary.knowledge = mixed(recipe(|name| name.ends_with("_p07")), "knowledge")?;
    summary.skills = mixed(recipe(|name| !name.ends_with("_p07")), "skills")?;
    Ok(summary)
}

fn accepted(rows: &RowSource) -> impl Iterator<Item = Result<Row, DatasetError>> {
    rows.rows().filter(|row| row.as_ref().map_or(true, Row::is_learned))
}

/// The entry of a leaf's file in its recipe: as much of it as its leaf weighs.
fn listed(name: &str, skill_lines: SamplingSize, weights: &BTreeMap<&str, f64>) -> RecipeFile {
    let knowledge = name.strip_suffix("_p10").or_else(|| name.strip_suffix("_p07"));
    let size = if knowledge.is_some() { SamplingSize::Share(1.0) } else { skill_lines };
    let weight = weights.get(knowledge.unwrap_or(name)).copied().unwrap_or(1.0);
    RecipeFile { path: format!("node_datasets/{name}.jsonl").into(), sampling_size: size.weighted(weight) }
}

/// The name of each leaf's file: its path joined by `_`, and where two leaves have the same, a hash behind it.
pub(super) fn file_names(leaves: &BTreeSet<String>) -> BTreeMap<String, String> {
    let joined = |leaf: &str| -> String {
        leaf.chars()
            .map(|letter| if letter.is_alphanumeric() || "-.".contains(letter) { letter } else { '_' })
            .collect()
    };
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for leaf in leaves {
        *count.entry(joined(leaf)).or_default() += 1;
    }
    let name = |leaf: &String| match joined(leaf) {
        name if count.get(&name) == Some(&1) => name,
        name => format!("{name}_{:08x}", draw::draw_key(0, &[leaf.as_bytes()]) >> 32),
    };
    leaves.iter().map(|leaf| (leaf.clone(), name(leaf))).collect()
}

/// Files of leaves, of which two are open at a time; a leaf whose rows come later again is written on.
struct LeafFiles {
    folder: PathBuf,
    open: Option<(String, BufWriter<File>)>,
    written: BTreeSet<String>,
}

impl LeafFiles {
    fn write(&mut self, name: &str, line: &TrainingLine) -> Result<(), DatasetError> {
        let path = self.folder.join(format!("{name}.jsonl"));
        let refuse = DatasetError::file("write", &path);
        let written = (|| {
            if self.open.as_ref().is_none_or(|(open, _)| open != name) {
                if let Some((_, mut file)) = self.open.take() {
                    file.flush()?;
                }
                self.open =
                    Some((name.to_owned(), BufWriter::new(OpenOptions::new().append(true).create(true).open(&path)?)));
                self.written.insert(name.to_owned());
            }
            self.open.as_mut().map_or(Ok(()), |(_, file)| line.write(file))
        })();
        written.map_err(refuse)
    }

    fn finish(mut self) -> Result<BTreeSet<String>, DatasetError> {
        if let Some((_, mut file)) = self.open.take() {
            file.flush().map_err(DatasetError::file("write", &self.folder))?;
        }
        Ok(self.written)
    }
}

/// A file of JSON lines, made with its first one.
struct Lines {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl Lines {
    fn create(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!("{name}.jsonl")), file: None, count: 0 }
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), DatasetError> {
        let refuse = DatasetError::file("write", &self.path);
        if self.file.is_none() {
            self.file =
                Some(BufWriter::new(File::create(&self.path).map_err(DatasetError::file("write", &self.path))?));
        }
        self.count += 1;
        let write = |file: &mut BufWriter<File>| {
            serde_json::to_writer(&mut *file, line)?;
            file.write_all(b"\n")
        };
        self.file.as_mut().map_or(Ok(()), write).map_err(refuse)
    }

    fn finish(self) -> Result<(), DatasetError> {
        let Self { path, file, .. } = self;
        file.map_or(Ok(()), |mut file| file.flush()).map_err(DatasetError::file("write", &path))
    }
}
