//! Whether a tree is a good one: what its form allows and its author hardly meant.
//!
//! Every finding is a warning with a place: a tree with them can be used, and what is made of it suffers.

mod leaks;
mod seeds;
mod thin;
mod words;

use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, Severity};
use crate::leaf::{Leaf, Seed};
use crate::tree::Tree;

/// What is looked for.
pub struct LintSettings<'a> {
    /// Share of words in a row that two questions have in common from which on they are near-duplicates (Jaccard index over
    /// pairs of neighbouring words).
    pub near: f64,
    /// Longest seed, with its context, in tokens.
    pub seed_tokens: usize,
    /// Counts tokens as the model does that will read the seeds.
    pub count_tokens: &'a dyn Fn(&str) -> usize,
    /// Questions that the model will be measured by.
    pub benchmarks: &'a [BenchmarkItem],
}

impl Default for LintSettings<'_> {
    fn default() -> Self {
        Self { near: 0.8, seed_tokens: 750, count_tokens: &|text| text.split_whitespace().count(), benchmarks: &[] }
    }
}

/// A row of a benchmark's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchmarkItem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Each of its texts by itself: question, context, choices.
    pub texts: Vec<String>,
}

/// Everything that is worth a look, sorted by place.
pub fn lint(tree: &Tree, settings: &LintSettings<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for leaf in &tree.leaves {
        seeds::lint(leaf, settings, &mut found);
        thin::lint(leaf, &mut found);
    }
    seeds::duplicates(tree, settings, &mut found);
    leaks::lint(tree, settings, &mut found);
    found.sort_by(Diagnostic::by_place);
    found.dedup();
    found
}

fn warning(leaf: &Leaf, line: usize, message: String, hint: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Severity::Warning, &leaf.file, line.max(1), 1, message).with_hint(hint)
}

/// The place of a seed in a message about another.
fn place(leaf: &Leaf, seed: &Seed) -> String {
    format!("{}:{}", leaf.file.display(), seed.line)
}

#[cfg(test)]
mod tests;
