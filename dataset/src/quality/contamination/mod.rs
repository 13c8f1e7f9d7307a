//! Rows that hold an item of a benchmark: what is trained on must not be what is measured.
//!
//! Each row is held against each item by an inverted index over runs of words of the items. Question, choices and answer of an
//! item are scored apart, as the share of their runs that stand in the row: runs of 8 words, of 13 where the part is long. A run
//! that three different questions have ("which of the following is an example of") says nothing and is left out. Where a part
//! is too short for a run, only the whole question counts, as a line or a paragraph of its own.

mod alike;
mod item;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

pub use alike::Alike;
pub use item::{Item, read_items};

use super::sample::Sample;
use super::words::{hash_of, mixed, words};

/// Words of a run.
const RUN: usize = 8;
/// Words of a run of a long part.
const LONG_RUN: usize = 13;
/// A part of this many words is long.
const LONG: usize = 64;
/// Questions that a run may stand in and still say which one it is.
const SHARED_BY: usize = 2;
/// Runs that choices and answers must have to be a hit alone: a short one may be said by anybody.
const RUNS_ALONE: usize = 4;
/// The share of runs that is a hit, unless told otherwise.
const CONTAINED: f64 = 0.5;

/// A part of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What is asked.
    Question,
    /// What can be chosen.
    Choices,
    /// What is right.
    Answer,
}

/// How much of an item stands in a row: of each part the share of its runs of words, from 0 to 1; 0 of a part without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Contained {
    /// Of the question; 1 where it stands in the row as it is.
    pub question: f64,
    /// Of the choices.
    pub choices: f64,
    /// Of the right answer.
    pub answer: f64,
}

impl Contained {
    fn part(&mut self, part: Part) -> &mut f64 {
        match part {
            Part::Question => &mut self.question,
            Part::Choices => &mut self.choices,
            Part::Answer => &mut self.answer,
        }
    }
}

/// An item that stands in a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Name of the benchmark.
    pub benchmark: String,
    /// Line of the item in the file of the benchmark.
    pub line: usize,
    /// The part that was found.
    pub part: Part,
    /// How much of each part stands in the row.
    pub contained: Contained,
    /// Words of the row that the item has too, from the first run on.
    pub row_text: String,
    /// The item's question.
    pub item_text: String,
}

impl Hit {
    /// The reason of the rejection.
    pub fn reason(&self) -> String {
        let (part, share) = match self.part {
            Part::Question => ("question", self.contained.question),
            Part::Choices => ("choices", self.contained.choices),
            Part::Answer => ("answer", self.contained.answer),
        };
        format!("contamination: {:.2} of the {part} of {}:{}", share, self.benchmark, self.line)
    }
}

/// Items of benchmarks, found by what stands in a row.
#[derive(Debug)]
pub struct Benchmarks {
    items: Vec<Item>,
    /// By hash of a whole question.
    whole: HashMap<u64, Vec<u32>>,
    /// By hash of a run.
    runs: HashMap<u64, Vec<(u32, Part)>>,
    /// How many runs a part has.
    counts: HashMap<(u32, Part), usize>,
    threshold: f64,
}

impl Benchmarks {
    /// Makes the index; a row holds an item when half of the runs of a part stand in it.
    pub fn new(items: Vec<Item>) -> Self {
        let mut known =
            Self { items, whole: HashMap::new(), runs: HashMap::new(), counts: HashMap::new(), threshold: CONTAINED };
        let mut asked_in: HashMap<u64, HashSet<u64>> = HashMap::new();
        let mut parts: Vec<((u32, Part), Vec<u64>)> = Vec::new();
        for (index, item) in known.items.iter().enumerate() {
            let index = index as u32;
            let question = words(&item.question);
            let whole = joined(&question);
            for form in forms(&question) {
                known.whole.entry(joined(form)).or_default().push(index);
            }
            let questions = runs(&question);
            for run in &questions {
                asked_in.entry(*run).or_default().insert(whole);
            }
            parts.push(((index, Part::Question), questions));
            // One choice after the other: what stands across two of them is nobody's text.
            parts.push(((index, Part::Choices), item.choices.iter().flat_map(|choice| runs(&words(choice))).collect()));
            parts.push(((index, Part::Answer), runs(&words(&item.answer))));
        }
        for (part, mut runs) in parts {
            runs.sort_unstable();
            runs.dedup();
            runs.retain(|run| asked_in.get(run).is_none_or(|questions| questions.len() <= SHARED_BY));
            for run in &runs {
                known.runs.entry(*run).or_default().push(part);
            }
            known.counts.insert(part, runs.len());
        }
        known
    }

    /// The share of a part's runs from which on a row holds it.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }

    /// The items.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Every item that stands in a row, the one of which most is found first.
    pub fn hits(&self, sample: &Sample<'_>) -> Vec<Hit> {
        let mut found: BTreeMap<u32, (Contained, String)> = BTreeMap::new();
        for (_, text) in sample.turns.iter().filter(|(role, _)| *role != "system") {
            for line in std::iter::once(*text).chain(text.split("\n\n")).chain(text.lines()) {
                let spoken = words(line);
                for &item in forms(&spoken).filter_map(|form| self.whole.get(&joined(form))).flatten() {
                    let (contained, said) = found.entry(item).or_default();
                    contained.question = 1.0;
                    line.trim().clone_into(said);
                }
            }
        }
        let spoken: Vec<Vec<String>> =
            sample.turns.iter().filter(|(role, _)| *role != "system").map(|(_, text)| words(text)).collect();
        let mut seen: HashSet<u64> = HashSet::new();
        let mut counts: BTreeMap<(u32, Part), (usize, String)> = BTreeMap::new();
        for words in &spoken {
            for length in [RUN, LONG_RUN] {
                for (place, run) in runs_of(words, length).enumerate() {
                    let Some(parts) = self.runs.get(&run).filter(|_| seen.insert(run)) else { continue };
                    for part in parts {
                        let (count, said) = counts.entry(*part).or_default();
                        *count += 1;
                        if said.is_empty() {
                            *said = words[place..words.len().min(place + 2 * length)].join(" ");
                        }
                    }
                }
            }
        }
        for ((item, part), (count, said)) in counts {
            let (contained, first) = found.entry(item).or_default();
            let share = count as f64 / self.counts[&(item, part)].max(1) as f64;
            let part = contained.part(part);
            *part = part.max(share);
            if first.is_empty() {
                *first = said;
            }
        }
        let mut hits: Vec<Hit> =
            found.into_iter().filter_map(|(item, (contained, said))| self.hit(item, contained, said)).collect();
        let most = |hit: &Hit| hit.contained.question.max(hit.contained.choices).max(hit.contained.answer);
        // The order of equal ones is that of the items: the sort is stable.
        hits.sort_by(|a, b| most(b).total_cmp(&most(a)));
        hits
    }

    fn hit(&self, index: u32, contained: Contained, row_text: String) -> Option<Hit> {
        let alone = |part| self.counts.get(&(index, part)).is_some_and(|count| *count >= RUNS_ALONE);
        let part = if contained.question >= self.threshold {
            Part::Question
        } else if contained.choices >= self.threshold && alone(Part::Choices) {
            Part::Choices
        } else if contained.answer >= self.threshold && alone(Part::Answer) {
            Part::Answer
        } else {
            return None;
        };
        let item = &self.items[index as usize];
        let (benchmark, line) = (item.benchmark.clone(), item.line);
        Some(Hit { benchmark, line, part, contained, row_text, item_text: item.question.clone() })
    }
}

/// A question as it stands, and without a label before it; nothing of a text without words.
fn forms(words: &[String]) -> impl Iterator<Item = &[String]> {
    let labelled = matches!(words.first().map(String::as_str), Some("question" | "q" | "problem")) && words.len() > 3;
    let whole = (!words.is_empty()).then_some(words);
    whole.into_iter().chain(labelled.then(|| &words[1..]))
}

fn joined(words: &[String]) -> u64 {
    hash_of(words.join(" ").into_bytes())
}

/// The runs of a part, of the length that fits it.
fn runs(words: &[String]) -> Vec<u64> {
    runs_of(words, if words.len() >= LONG { LONG_RUN } else { RUN }).collect()
}

/// Hashes of all runs of so many words.
fn runs_of(words: &[String], length: usize) -> impl Iterator<Item = u64> {
    let hashes: Vec<u64> = words.iter().map(|word| hash_of(word.bytes())).collect();
    let last = (hashes.len() + 1).saturating_sub(length);
    (0..last).map(move |place| {
        // The length first, so that runs of different lengths never meet.
        hashes[place..place + length].iter().fold(length as u64, |before, &word| mixed(before ^ word))
    })
}

#[cfg(test)]
mod tests;
