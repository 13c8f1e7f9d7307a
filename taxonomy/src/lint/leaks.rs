//! Seeds that give away what the model is measured by.

use std::collections::{HashMap, HashSet};

use super::words::{jaccard, normal, shingles, words};
use super::{LintSettings, warning};
use crate::diagnostic::Diagnostic;
use crate::leaf::{Leaf, Seed};
use crate::tree::Tree;

/// Words in a row that two texts do not have in common by chance.
const RUN: usize = 8;

/// Share of a measured text's runs that a seed may hold.
const CONTAINED: f64 = 0.5;

/// A run that stands in more measured texts than this is their common wording: an instruction, not a question.
const COMMON_RUN: usize = 3;

/// A text that the model is measured by.
struct Measured {
    place: String,
    what: &'static str,
    short: HashSet<u64>,
    runs: HashSet<u64>,
    /// How many runs there were before common wording was taken out.
    length: usize,
}

pub(super) fn lint(tree: &Tree, settings: &LintSettings<'_>, found: &mut Vec<Diagnostic>) {
    let mut measured = Vec::new();
    for leaf in &tree.leaves {
        let file = leaf.test_file.as_ref().unwrap_or(&leaf.file);
        for item in &leaf.test {
            let place = format!("{}:{}", file.display(), item.line);
            measured.push(of(place, "a held-out question", &item.question));
        }
    }
    for item in settings.benchmarks {
        let place = format!("{}:{}", item.file.display(), item.line);
        measured.extend(item.texts.iter().map(|text| of(place.clone(), "a benchmark", text)));
    }
    let mut times: HashMap<u64, usize> = HashMap::new();
    for run in measured.iter().flat_map(|text| &text.runs) {
        *times.entry(*run).or_default() += 1;
    }
    for text in &mut measured {
        text.runs.retain(|run| times[run] <= COMMON_RUN);
    }
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    for (number, text) in measured.iter().enumerate() {
        for shingle in text.short.iter().chain(&text.runs) {
            index.entry(*shingle).or_default().push(number);
        }
    }
    for leaf in &tree.leaves {
        for seed in &leaf.seeds {
            compare(leaf, seed, &measured, &index, settings, found);
        }
    }
}

fn of(place: String, what: &'static str, text: &str) -> Measured {
    let words = words(text);
    let runs = if words.len() >= RUN { shingles(&words, RUN) } else { HashSet::new() };
    Measured { place, what, short: shingles(&words, 2), length: runs.len(), runs }
}

fn compare(
    leaf: &Leaf,
    seed: &Seed,
    measured: &[Measured],
    index: &HashMap<u64, Vec<usize>>,
    settings: &LintSettings<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let questions: Vec<HashSet<u64>> = seed.asked().map(|question| shingles(&words(question), 2)).collect();
    let context = seed.context.as_deref().unwrap_or_default();
    let whole = words(&normal(&[context, &seed.script(), &seed.answer].join(" ")));
    let runs = shingles(&whole, RUN);
    let shared = questions.iter().flatten().chain(&runs);
    let mut candidates: Vec<usize> = shared.filter_map(|shingle| index.get(shingle)).flatten().copied().collect();
    candidates.sort_unstable();
    candidates.dedup();
    let given_away: Vec<(f64, &Measured)> = candidates
        .into_iter()
        .filter_map(|number| {
            let text = &measured[number];
            let near = questions.iter().map(|question| jaccard(question, &text.short)).fold(0.0, f64::max);
            let held = text.runs.intersection(&runs).count() as f64 / text.length.max(1) as f64;
            (near >= settings.near || held >= CONTAINED).then_some((near.max(held), text))
        })
        .collect();
    // Of several the one that is given away most; of equals the first.
    let Some((share, text)) = given_away.iter().rev().max_by(|a, b| a.0.total_cmp(&b.0)) else { return };
    let others = match given_away.len() - 1 {
        0 => String::new(),
        count => format!(", and {count} more"),
    };
    found.push(warning(
        leaf,
        seed.line,
        format!("this seed gives away {} at {} ({:.0} % of it){others}", text.what, text.place, 100.0 * share),
        "remove one of them: a model that has seen the question is not measured by it",
    ));
}
