//! Seeds by themselves and beside each other.

use std::collections::{HashMap, HashSet};

use super::words::{is_common, near_pairs, normal, shingles, words};
use super::{LintSettings, place, warning};
use crate::diagnostic::Diagnostic;
use crate::leaf::{Leaf, LeafKind, Seed};
use crate::tree::Tree;

/// Share of an answer's words that its context or question should have, in knowledge.
const SUPPORTED: f64 = 0.5;

/// Shorter answers tell too little: `yes` stands in no context.
const FEWEST_WORDS: usize = 3;

/// Seeds that are too long, that say what their context does not, or that were never filled in.
pub(super) fn lint(leaf: &Leaf, settings: &LintSettings<'_>, found: &mut Vec<Diagnostic>) {
    for seed in &leaf.seeds {
        let context = seed.context.as_deref().unwrap_or_default();
        let parts: Vec<&str> = [context].into_iter().chain(seed.asked()).chain(seed.answered()).collect();
        let tokens: usize = parts.iter().map(|part| (settings.count_tokens)(part)).sum();
        if tokens > settings.seed_tokens {
            found.push(warning(
                leaf,
                seed.line,
                format!("this seed with its context has {tokens} tokens, more than {}", settings.seed_tokens),
                "shorten the context to what the question needs: each prompt of generation carries several seeds",
            ));
        }
        if parts.iter().any(|part| part.starts_with(crate::PLACEHOLDER)) {
            let message = "a text of the scaffold was never filled in".to_owned();
            found.push(warning(leaf, seed.line, message, "write your own text in its place"));
        }
        if leaf.kind == LeafKind::Knowledge {
            unsupported(leaf, seed, found);
        }
    }
}

fn unsupported(leaf: &Leaf, seed: &Seed, found: &mut Vec<Diagnostic>) {
    let Some(context) = &seed.context else { return };
    let known: HashSet<String> = words(context).into_iter().chain(words(&seed.script())).collect();
    let mut seen = HashSet::new();
    let said: Vec<String> =
        words(&seed.answer).into_iter().filter(|word| !is_common(word) && seen.insert(word.clone())).collect();
    let stem = |word: &str| word.chars().take(5).collect::<String>();
    // Forms of one word begin alike.
    let stems: HashSet<String> = known.iter().map(|word| stem(word)).collect();
    let missing: Vec<&str> =
        said.iter().filter(|word| !known.contains(*word) && !stems.contains(&stem(word))).map(String::as_str).collect();
    if said.len() >= FEWEST_WORDS && (missing.len() as f64) > (1.0 - SUPPORTED) * said.len() as f64 {
        found.push(warning(
            leaf,
            seed.line,
            format!(
                "{} of {} words of the answer stand neither in its context nor in its question: {}",
                missing.len(),
                said.len(),
                missing.iter().take(5).copied().collect::<Vec<_>>().join(", ")
            ),
            "knowledge comes from the context: say what it says, or give the context that says so",
        ));
    }
}

/// Seeds that say the same twice, within a leaf or in two, and questions with two answers.
pub(super) fn duplicates(tree: &Tree, settings: &LintSettings<'_>, found: &mut Vec<Diagnostic>) {
    let seeds: Vec<(&Leaf, &Seed)> =
        tree.leaves.iter().flat_map(|leaf| leaf.seeds.iter().map(move |seed| (leaf, seed))).collect();
    let mut first: HashMap<(String, String), usize> = HashMap::new();
    let mut same = HashSet::new();
    for (number, (leaf, seed)) in seeds.iter().enumerate() {
        let key = (normal(seed.context.as_deref().unwrap_or_default()), normal(&seed.script()));
        let earlier = *first.entry(key).or_insert(number);
        if earlier == number {
            continue;
        }
        same.insert((earlier, number));
        let (other_leaf, other) = seeds[earlier];
        let (message, hint) = if normal(&other.answer) == normal(&seed.answer) {
            ("this seed stands twice", "remove one of them: what stands twice is taught twice")
        } else {
            (
                "this question has two answers",
                "keep the better answer, or say in the question what makes the difference",
            )
        };
        found.push(warning(leaf, seed.line, format!("{message}, first at {}", place(other_leaf, other)), hint));
    }
    // Questions of one form about other contexts are no duplicates.
    let sets: Vec<HashSet<u64>> = seeds
        .iter()
        .map(|(_, seed)| {
            let text = format!("{} {}", seed.context.as_deref().unwrap_or_default(), seed.script());
            shingles(&words(&text), 2)
        })
        .collect();
    let mut reported: HashSet<usize> = same.iter().map(|(_, number)| *number).collect();
    for (a, b, index) in near_pairs(&sets, settings.near) {
        let ((first_leaf, first), (leaf, seed)) = (seeds[a], seeds[b]);
        // About one context, questions differ in few of all words: they are compared by themselves.
        if first.context.is_some() && first.context == seed.context {
            continue;
        }
        if reported.insert(b) {
            found.push(near(leaf, seed, first_leaf, first, index));
        }
    }
    for leaf in &tree.leaves {
        let questions: Vec<HashSet<u64>> = leaf.seeds.iter().map(|seed| shingles(&words(&seed.script()), 2)).collect();
        for (a, b, index) in near_pairs(&questions, settings.near) {
            let (first, seed) = (&leaf.seeds[a], &leaf.seeds[b]);
            let identical = normal(&first.script()) == normal(&seed.script());
            if seed.context.is_some() && first.context == seed.context && !identical {
                found.push(near(leaf, seed, leaf, first, index));
            }
        }
    }
}

fn near(leaf: &Leaf, seed: &Seed, first_leaf: &Leaf, first: &Seed, index: f64) -> Diagnostic {
    warning(
        leaf,
        seed.line,
        format!(
            "this seed is nearly that at {} ({:.0} % of the words in a row)",
            place(first_leaf, first),
            100.0 * index
        ),
        "ask something else: seeds that differ widely give rows that differ widely",
    )
}
