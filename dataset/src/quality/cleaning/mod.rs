//! A file of rows, cleaned in one pass: masked, checked by rules, held against benchmarks, without near-duplicates and without
//! what says the same in other words.
//!
//! Rows are read and written in portions, in order. What is held of a row after its portion is what [`NearDuplicates`] holds, some
//! 300 bytes of a kept one; its shingles go to a file. With [`Meaning`] its vectors are held too. A row is looked at in a fixed
//! order (mask, rules, benchmarks, near-duplicates, meaning), so that what one check rejects is no twin for another row. Only what
//! is rejected for its meaning still has near-duplicates: they mean the same.

mod entry;
mod report;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;

pub use report::{CleaningReport, Found};

use self::entry::{Entries, Entry, Output};
use self::report::Counts;
use super::contamination::{Alike, Benchmarks, Hit};
use super::masking::Masked;
use super::meaning::{Meanings, RowVectors, SameMeaning, Vectors};
use super::near::{Compared, Duplicate, NearDuplicates, scratch_of};
use super::rules::{Known, Language, Rules};
use super::sample::Sample;
use crate::atomic::AtomicFile;
use crate::error::DatasetError;
use crate::formats::{Example, Records};

/// Rows that are looked at together.
const AT_ONCE: usize = 4096;

/// What is done to rows. By default nothing.
#[derive(Debug, Default)]
pub struct Cleaning {
    /// Personal data is replaced.
    pub mask: bool,
    /// Rules that rows must keep.
    pub rules: Option<Rules>,
    /// The language that the rule of languages asks for.
    pub language: Option<Language>,
    /// Items that rows must not hold.
    pub benchmarks: Option<Benchmarks>,
    /// Near-duplicates are rejected.
    pub deduplication: Option<Deduplication>,
}

/// How near-duplicates are found.
#[derive(Clone, Debug, PartialEq)]
pub struct Deduplication {
    /// From this similarity on, up to 1.
    pub threshold: f64,
    /// What of a row is compared.
    pub compared: Compared,
    /// Files whose rows count as kept: seeds, tests.
    pub against: Vec<PathBuf>,
    /// The rows that earlier runs kept, to which those kept here are added.
    pub index: Option<PathBuf>,
}

/// Rows compared by what they say: with each other, and with the items of benchmarks.
pub struct Meaning<'a> {
    /// From this cosine on two texts say the same.
    pub threshold: f32,
    /// What of two rows is compared.
    pub compared: Compared,
    /// Makes a vector of each text.
    pub embed: &'a mut dyn FnMut(&[String]) -> Result<Vectors, DatasetError>,
}

/// Where cleaned rows go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outputs<'a> {
    /// The cleaned file, a table or lines as the input is; nothing is written without it.
    pub cleaned: Option<&'a Path>,
    /// Rejected rows with their reasons, one JSON object a line.
    pub rejected: Option<&'a Path>,
}

/// A row after its checks.
struct Checked {
    entry: Entry,
    masked: Masked,
    rejection: Option<Rejection>,
}

/// Why a row is out.
enum Rejection {
    /// It was out before.
    Before,
    /// It cannot be read.
    Unreadable(String),
    Rule(String),
    Contaminated(Box<Hit>),
    AlikeItem(Box<Alike>),
    Duplicate(Duplicate),
    SameMeaning(SameMeaning),
}

impl Rejection {
    fn reason(&self, entry: &Entry) -> String {
        match self {
            Self::Before => entry.reason_before(),
            Self::Unreadable(what) => format!("unreadable: {what}"),
            Self::Rule(reason) => reason.clone(),
            Self::Contaminated(hit) => hit.reason(),
            Self::AlikeItem(alike) => alike.reason(),
            Self::Duplicate(duplicate) => duplicate.reason(),
            Self::SameMeaning(same) => same.reason(),
        }
    }
}

/// Cleans a file of rows. A table keeps its rejected rows, with verdict and reason; of lines only the kept ones are written, and
/// as they stand where nothing was masked. Outputs have their names only when all is done. `progress` is told how much was read, of
/// how much; when it breaks, nothing is written and the result is `None`.
///
/// # Errors
/// A file that cannot be read or written, is of no known format, or an output of another kind than the input.
pub fn clean(
    input: &Path,
    outputs: Outputs<'_>,
    cleaning: &Cleaning,
    meaning: Option<Meaning<'_>>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<CleaningReport>, DatasetError> {
    let mut entries = Entries::open(input)?;
    let mut output = outputs.cleaned.map(|path| Output::create(path, &entries)).transpose()?;
    let create = |path: &Path| AtomicFile::create(path).map_err(DatasetError::file("write", path));
    let mut ledger = outputs.rejected.map(create).transpose()?;
    let mut near = cleaning.deduplication.as_ref().map(|wanted| wanted.known(input, outputs.cleaned)).transpose()?;
    let mut meaning = meaning.map(|meaning| Said::new(meaning, cleaning)).transpose()?;
    let mut report = Counts::new(near.as_ref().map_or(0, NearDuplicates::kept));
    loop {
        let portion = entries.by_ref().take(AT_ONCE).collect::<Result<Vec<_>, _>>()?;
        if portion.is_empty() {
            break;
        }
        let mut checked: Vec<Checked> = portion.into_par_iter().map(|entry| cleaning.check(entry)).collect();
        if let Some(said) = meaning.as_mut() {
            said.reject_items(&mut checked)?;
        }
        if let Some(near) = near.as_mut() {
            reject_twins(&mut checked, near)?;
        }
        if let Some(said) = meaning.as_mut() {
            said.reject_same(&mut checked)?;
        }
        for row in checked {
            report.add(&row);
            if let (Some(file), Some(rejection)) = (ledger.as_mut(), &row.rejection) {
                let failed = DatasetError::file("write", outputs.rejected.unwrap_or(input));
                writeln!(file, "{}", ledger_line(&row.entry, rejection)).map_err(failed)?;
            }
            if let Some(output) = output.as_mut() {
                output.write(row.entry, row.rejection.as_ref())?;
            }
        }
        let (done, total) = entries.progress();
        if progress(done, total).is_break() {
            return Ok(None);
        }
    }
    if let Some(output) = output {
        output.finish()?;
    }
    if let (Some(file), Some(path)) = (ledger, outputs.rejected) {
        file.commit().map_err(DatasetError::file("write", path))?;
    }
    let index = cleaning.deduplication.as_ref().and_then(|wanted| wanted.index.as_deref());
    if let (Some(near), Some(index), true) = (&near, index, outputs.cleaned.is_some()) {
        near.append_to(index)?;
    }
    Ok(Some(report.finish()))
}

impl Cleaning {
    fn check(&self, mut entry: Entry) -> Checked {
        let masked = if self.mask { entry.mask() } else { Masked::new() };
        let rejection = entry.rejection().or_else(|| self.rejection(&entry.sample()?));
        Checked { entry, masked, rejection }
    }

    fn rejection(&self, sample: &Sample<'_>) -> Option<Rejection> {
        let known = Known { language: self.language, ..Known::default() };
        if let Some(breach) = self.rules.as_ref().and_then(|rules| rules.check(sample, &known)) {
            return Some(Rejection::Rule(breach.reason()));
        }
        let hit = self.benchmarks.as_ref()?.hits(sample).into_iter().next()?;
        Some(Rejection::Contaminated(Box::new(hit)))
    }
}

impl Deduplication {
    /// What is known before the first row.
    fn known(&self, input: &Path, output: Option<&Path>) -> Result<NearDuplicates, DatasetError> {
        // A dry run leaves nothing beside files of the user.
        let scratch = output.map_or_else(
            || std::env::temp_dir().join(format!("espalier-{}.shingles.part", std::process::id())),
            scratch_of,
        );
        let mut known = NearDuplicates::new(self.threshold, self.compared);
        if let Some(index) = &self.index {
            known = known.with_index(index, &output.unwrap_or(input).display().to_string())?;
        }
        known = known.with_scratch(&scratch)?;
        for path in &self.against {
            for (id, example) in examples(path)? {
                known.add_all(&[Sample { id: &id, ..Sample::from(&example) }])?;
            }
        }
        Ok(known)
    }
}

/// The rows of a file, each with its name and line as id.
fn examples(path: &Path) -> Result<Vec<(String, Example)>, DatasetError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut examples = Vec::new();
    for record in Records::open(path, None)? {
        let record = record.map_err(DatasetError::Problem)?;
        let line = record.line();
        let example =
            record.example().map_err(|reason| DatasetError::Line { path: path.to_path_buf(), line, reason })?;
        examples.push((format!("{name}:{line}"), example));
    }
    Ok(examples)
}

/// What was said so far.
struct Said<'e, 'b> {
    meaning: Meaning<'e>,
    kept: Meanings,
    /// Items, with the vectors of what they ask.
    items: Option<(&'b Benchmarks, Vectors)>,
}

impl<'e, 'b> Said<'e, 'b> {
    fn new(meaning: Meaning<'e>, cleaning: &'b Cleaning) -> Result<Self, DatasetError> {
        let benchmarks = cleaning.benchmarks.as_ref();
        let items =
            benchmarks.map(|items| Ok::<_, DatasetError>((items, (meaning.embed)(&items.questions())?))).transpose()?;
        let mut kept = Meanings::new(meaning.threshold);
        for path in cleaning.deduplication.iter().flat_map(|wanted| &wanted.against) {
            let examples = examples(path)?;
            let ids: Vec<&str> = examples.iter().map(|(id, _)| id.as_str()).collect();
            let samples: Vec<Sample<'_>> = examples.iter().map(|(_, example)| Sample::from(example)).collect();
            kept.add_all(&ids, &RowVectors::new(&samples, meaning.compared, &mut *meaning.embed)?);
        }
        Ok(Self { meaning, kept, items })
    }

    /// Rejects rows that ask what an item asks.
    fn reject_items(&mut self, checked: &mut [Checked]) -> Result<(), DatasetError> {
        let Some((items, questions)) = &self.items else { return Ok(()) };
        let (threshold, embed) = (self.meaning.threshold, &mut *self.meaning.embed);
        reject(checked, Rejection::AlikeItem, |samples| {
            let found = items.alike(samples, questions, threshold, embed)?;
            Ok(found.into_iter().map(|alike| alike.map(Box::new)).collect())
        })
    }

    /// Rejects rows that say what an earlier one says.
    fn reject_same(&mut self, checked: &mut [Checked]) -> Result<(), DatasetError> {
        let (kept, meaning) = (&mut self.kept, &mut self.meaning);
        reject(checked, Rejection::SameMeaning, |samples| {
            let ids: Vec<&str> = samples.iter().map(|sample| sample.id).collect();
            Ok(kept.add_all(&ids, &RowVectors::new(samples, meaning.compared, &mut *meaning.embed)?))
        })
    }
}

fn reject_twins(checked: &mut [Checked], near: &mut NearDuplicates) -> Result<(), DatasetError> {
    reject(checked, Rejection::Duplicate, |samples| near.add_all(samples))
}

/// Rejects those rows, of those that are not rejected yet, in which `look` finds something.
fn reject<T>(
    checked: &mut [Checked],
    rejection: impl Fn(T) -> Rejection,
    look: impl FnOnce(&[Sample<'_>]) -> Result<Vec<Option<T>>, DatasetError>,
) -> Result<(), DatasetError> {
    let open: Vec<usize> = (0..checked.len()).filter(|&index| checked[index].rejection.is_none()).collect();
    let samples: Vec<Sample<'_>> = open.iter().filter_map(|&index| checked[index].entry.sample()).collect();
    for (index, found) in open.into_iter().zip(look(&samples)?) {
        checked[index].rejection = found.map(&rejection);
    }
    Ok(())
}

fn ledger_line(entry: &Entry, rejection: &Rejection) -> serde_json::Value {
    let mut line = json!({"id": entry.id(), "line": entry.line(), "reason": rejection.reason(entry)});
    match rejection {
        Rejection::Contaminated(hit) => line["hit"] = json!(hit),
        Rejection::AlikeItem(alike) => line["hit"] = json!(alike),
        Rejection::Duplicate(duplicate) => line["duplicate"] = json!(duplicate),
        Rejection::SameMeaning(same) => line["same_meaning"] = json!(same),
        _ => {}
    }
    line["row"] = entry.value();
    line
}
