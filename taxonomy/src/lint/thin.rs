//! Leaves that hold too little to learn from.

use std::collections::HashSet;

use super::warning;
use super::words::normal;
use crate::diagnostic::Diagnostic;
use crate::leaf::{Leaf, LeafKind};

/// What `InstructLab` asks for, and what variety in prompts needs.
const FEWEST_SEEDS: usize = 5;

pub(super) fn lint(leaf: &Leaf, found: &mut Vec<Diagnostic>) {
    let line = leaf.seeds.first().map_or(1, |seed| seed.line);
    let count = leaf.seeds.len();
    // A template makes its own variety.
    if count < FEWEST_SEEDS && leaf.questions.is_none() {
        found.push(warning(
            leaf,
            line,
            format!("the leaf has {count} seeds, fewer than {FEWEST_SEEDS}"),
            "add seeds that differ in wording, length and difficulty",
        ));
    }
    let contexts: HashSet<&str> = leaf.seeds.iter().filter_map(|seed| seed.context.as_deref()).collect();
    if leaf.kind != LeafKind::FreeformSkill && count > 1 && contexts.len() == 1 {
        found.push(warning(
            leaf,
            line,
            "all seeds of the leaf are about one context".to_owned(),
            "take contexts from several parts of the material",
        ));
    }
    let answers: HashSet<String> = leaf.seeds.iter().map(|seed| normal(&seed.answer)).collect();
    if count > 2 && answers.len() == 1 {
        found.push(warning(
            leaf,
            line,
            "all seeds of the leaf have the same answer".to_owned(),
            "add seeds with other answers: a model would learn to say this always",
        ));
    }
}
