//! Mixtures: how many lines of which source and leaf, drawn by a seed, in an order drawn by it too.
//!
//! Lines are counted first and taken in a second reading, so that a mixture of millions is made in bounded memory: what is
//! held are counts by leaf and a 64th of the mixture. No line comes twice before all of its leaf came once. The weight that a
//! leaf gives its lines is spent on the mixture, and the lines of it have none.

mod legacy;
mod plan;
mod recipe;
mod shuffle;
mod split;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::atomic::AtomicFile;
use crate::draw::Draw;
use crate::error::DatasetError;
use crate::formats::{Problem, TrainingLine};
use crate::instructlab::{Recipe, SamplingSize};
use crate::lines::LineSource;

pub use recipe::{MixRecipe, MixSource};
pub use split::{SplitBy, SplitSummary, split};

use plan::Take;
use shuffle::Shuffle;

/// What a mixture became.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MixSummary {
    /// Lines written.
    pub lines: u64,
    /// Lines left out because a turn of them says nothing.
    pub empty: u64,
    /// The sources in the order of the recipe.
    pub sources: Vec<SourceSummary>,
}

/// What a source gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceSummary {
    /// Its name.
    pub name: String,
    /// Lines that it has, without empty ones.
    pub lines: u64,
    /// Lines of it in the mixture.
    pub taken: u64,
    /// Of these, lines that were in the mixture already.
    pub repeated: u64,
    /// Lines in the mixture by leaf, where they say one.
    pub leaves: BTreeMap<String, u64>,
}

/// A source with what is taken of it.
struct Input {
    name: String,
    source: LineSource,
    take: Take,
}

/// Mixes by a recipe of ours, atomically.
///
/// # Errors
/// A source that cannot be read, and a mixture without a line.
pub fn mix(recipe: &MixRecipe, folder: &Path, out: &Path) -> Result<MixSummary, DatasetError> {
    let mut inputs = Vec::new();
    for source in &recipe.sources {
        let path = folder.join(&source.rows);
        inputs.push(Input {
            name: source.rows.display().to_string(),
            source: LineSource::open(&path, source.version, source.form, recipe.seed)?,
            take: Take::of(source),
        });
    }
    let mut shuffle = Shuffle::new(out, recipe.seed).map_err(DatasetError::file("write", out))?;
    let summary = draw(&inputs, recipe.seed, recipe.system.as_deref(), out, |line| {
        let mut bytes = Vec::new();
        line.write(&mut bytes)?;
        shuffle.add(&bytes)
    })?;
    write(out, |file| shuffle.finish(file))?;
    Ok(summary)
}

/// Mixes by a recipe of `InstructLab`'s, atomically: its files one after the other, with its system prompt.
///
/// Of a file that is taken in part or more than once, `legacy` draws the very lines that instructlab-sdg draws, with
/// replacement, so that even half a file has twins; otherwise no line comes twice before all came once.
///
/// # Errors
/// A file that cannot be read, and a mixture without a line.
pub fn mix_recipe(recipe: &Recipe, folder: &Path, legacy: bool, out: &Path) -> Result<MixSummary, DatasetError> {
    let mut inputs = Vec::new();
    for file in &recipe.datasets {
        inputs.push(Input {
            name: file.path.display().to_string(),
            source: LineSource::open(&folder.join(&file.path), None, crate::lines::LineForm::Plain, 0)?,
            take: Take::size(file.sampling_size),
        });
    }
    let system = recipe.metadata.sys_prompt.as_deref();
    let mut file = AtomicFile::create(out).map_err(DatasetError::file("write", out))?;
    let summary = if legacy {
        draw_legacy(&inputs, recipe, out, |line| line.write(&mut file))
    } else {
        draw(&inputs, 0, system, out, |line| line.write(&mut file))
    }?;
    file.commit().map_err(DatasetError::file("write", out))?;
    Ok(summary)
}

fn write(out: &Path, fill: impl FnOnce(&mut AtomicFile) -> std::io::Result<()>) -> Result<(), DatasetError> {
    let refuse = DatasetError::file("write", out);
    let written = AtomicFile::create(out).and_then(|mut file| {
        fill(&mut file)?;
        file.flush()?;
        file.commit()
    });
    written.map_err(refuse)
}

/// Takes the lines of each input, in its own order.
fn draw(
    inputs: &[Input],
    seed: u64,
    system: Option<&str>,
    out: &Path,
    mut put: impl FnMut(&TrainingLine) -> std::io::Result<()>,
) -> Result<MixSummary, DatasetError> {
    let mut summary = MixSummary::default();
    let mut counts = Vec::new();
    for input in inputs {
        let (held, empty) = count(&input.source)?;
        summary.empty += empty;
        counts.push(held);
    }
    let takes: Vec<&Take> = inputs.iter().map(|input| &input.take).collect();
    let plans = plan::plan(&takes, &counts);
    for (place, (input, (counts, plan))) in inputs.iter().zip(counts.iter().zip(&plans)).enumerate() {
        let lines = counts.values().map(|held| held.lines).sum();
        let mut found = SourceSummary { name: input.name.clone(), lines, ..Default::default() };
        let mut leaves: BTreeMap<&str, plan::Drawn> = BTreeMap::new();
        for (leaf, &plan::Held { lines, .. }) in counts {
            let wanted = plan.get(leaf).copied().unwrap_or_default();
            let draw = Draw::new(seed, &[b"lines", &(place as u64).to_le_bytes(), leaf.as_bytes()]);
            leaves.insert(leaf, plan::Drawn::new(lines, wanted, draw));
        }
        for line in input.source.lines()? {
            let mut line = line?;
            if line.is_empty() {
                continue;
            }
            let copies = leaves.get_mut(line.leaf().unwrap_or_default()).map_or(0, plan::Drawn::copies);
            if copies == 0 {
                continue;
            }
            found.taken += copies;
            found.repeated += copies - 1;
            if let Some(leaf) = line.leaf() {
                *found.leaves.entry(leaf.to_owned()).or_default() += copies;
            }
            if let Some(prompt) = system {
                line.set_system(prompt);
            }
            let line = line.without_leaf_weight();
            for _ in 0..copies {
                put(&line).map_err(DatasetError::file("write", out))?;
            }
        }
        summary.lines += found.taken;
        summary.sources.push(found);
    }
    refuse_nothing(out, &summary)?;
    Ok(summary)
}

/// Takes lines as instructlab-sdg does; the lines of a file that is not taken whole are held.
fn draw_legacy(
    inputs: &[Input],
    recipe: &Recipe,
    out: &Path,
    mut put: impl FnMut(&TrainingLine) -> std::io::Result<()>,
) -> Result<MixSummary, DatasetError> {
    let mut summary = MixSummary::default();
    for (input, file) in inputs.iter().zip(&recipe.datasets) {
        let lines: Vec<TrainingLine> = input.source.lines()?.collect::<Result<_, _>>()?;
        let too_long = |_| {
            DatasetError::Problem(Problem {
                path: out.to_path_buf(),
                line: None,
                what: format!("{} has too many lines for draws with replacement", input.name),
            })
        };
        let count = u32::try_from(lines.len()).map_err(too_long)?;
        let places = match file.sampling_size {
            SamplingSize::Share(1.0) => (0..lines.len()).collect(),
            size => legacy::with_replacement(count, size.lines(count.into())),
        };
        let mut found = SourceSummary { name: input.name.clone(), lines: count.into(), ..Default::default() };
        let mut seen = std::collections::HashSet::new();
        for place in places {
            let mut line = lines[place].clone();
            if line.is_empty() {
                summary.empty += 1;
                continue;
            }
            line.set_system(recipe.metadata.sys_prompt.as_deref().unwrap_or_default());
            put(&line.without_leaf_weight()).map_err(DatasetError::file("write", out))?;
            found.taken += 1;
            found.repeated += u64::from(!seen.insert(place));
        }
        summary.lines += found.taken;
        summary.sources.push(found);
    }
    refuse_nothing(out, &summary)?;
    Ok(summary)
}

/// Counts lines by leaf, and those that say nothing.
fn count(source: &LineSource) -> Result<(plan::Holdings, u64), DatasetError> {
    let mut leaves = plan::Holdings::new();
    let mut empty = 0;
    for line in source.lines()? {
        let line = line?;
        if line.is_empty() {
            empty += 1;
            continue;
        }
        let leaf = line.leaf().unwrap_or_default();
        if !leaves.contains_key(leaf) {
            leaves.insert(leaf.to_owned(), plan::Held::default());
        }
        if let Some(held) = leaves.get_mut(leaf) {
            held.lines += 1;
            held.weighted += line.leaf_weight();
        }
    }
    Ok((leaves, empty))
}

fn refuse_nothing(out: &Path, summary: &MixSummary) -> Result<(), DatasetError> {
    if summary.lines > 0 {
        return Ok(());
    }
    let what = format!(
        "the mixture would have no line ({} sources, {} lines that say nothing); see what was accepted with \
         `pipeline data funnel`",
        summary.sources.len(),
        summary.empty
    );
    Err(DatasetError::Problem(Problem { path: out.to_path_buf(), line: None, what }))
}
