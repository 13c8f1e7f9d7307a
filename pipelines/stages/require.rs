//! What must be shown before a run may go on: `tuned > base on LEAF`, `quantized non-inferior to tuned`.

use super::evaluate::{Candidate, Side};
use crate::outcome::Failure;
use anyhow::Result;
use espalier_eval::{Comparison, ComparisonOptions, Evaluation, NonInferiority, Verdict, adjust_family, compare};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A claim that a run must show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Requirement {
    /// The model that it speaks of; every file where it says `quantized`.
    pub second: Side,
    /// What is claimed of it.
    pub claim: Claim,
    /// What it is measured against, without examples.
    pub first: Side,
    /// The leaf; every leaf with a test where none is named.
    pub leaf: Option<String>,
}

/// What one model is to be beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Better beyond chance.
    Better,
    /// At most the margin worse.
    NonInferior,
}

const FORM: &str = "write `tuned > base`, `tuned > base on LEAF` or `quantized non-inferior to tuned`";

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (claim, leaf) = match text.split_once(" on ") {
            Some((claim, leaf)) => (claim, Some(leaf.trim().to_owned())),
            None => (text, None),
        };
        let (second, claim, first) = if let Some((second, first)) = claim.split_once('>') {
            (second, Claim::Better, first)
        } else if let Some((second, first)) = claim.split_once("non-inferior to") {
            (second, Claim::NonInferior, first)
        } else {
            return Err(format!("`{text}` is no requirement; {FORM}"));
        };
        let side = |name: &str| match name.trim() {
            "base" => Ok(Side::Base),
            "tuned" => Ok(Side::Tuned),
            "quantized" => Ok(Side::Quantized),
            other => Err(format!("`{text}`: there is no model `{other}`, only base, tuned and quantized; {FORM}")),
        };
        let (second, first) = (side(second)?, side(first)?);
        if second == first {
            return Err(format!("`{text}` holds a model against itself; {FORM}"));
        }
        if leaf.as_deref() == Some("") {
            return Err(format!("`{text}` names no leaf after `on`; {FORM}"));
        }
        Ok(Self { second, claim, first, leaf })
    }
}

impl TryFrom<String> for Requirement {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Requirement> for String {
    fn from(requirement: Requirement) -> Self {
        requirement.to_string()
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claim = match self.claim {
            Claim::Better => ">",
            Claim::NonInferior => "non-inferior to",
        };
        write!(formatter, "{} {claim} {}", self.second.name(), self.first.name())?;
        match &self.leaf {
            Some(leaf) => write!(formatter, " on {leaf}"),
            None => Ok(()),
        }
    }
}

/// The models of a run with their evaluations of each leaf, in the order of `leaves`.
#[derive(Debug, Clone, Copy)]
pub struct Evaluated<'a> {
    /// The models.
    pub candidates: &'a [Candidate],
    /// Names of the leaves.
    pub leaves: &'a [&'a str],
    /// Of each model its evaluation of each leaf.
    pub evaluations: &'a [Vec<Evaluation>],
}

/// The requirements that are not shown, a line each with the figures.
pub fn missing(requirements: &[Requirement], run: Evaluated<'_>, options: &ComparisonOptions) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for requirement in requirements {
        for (leaf, comparison) in comparisons(requirement, run, options)? {
            let words = match requirement.claim {
                Claim::Better if comparison.verdict != Verdict::Better => comparison.words(),
                Claim::NonInferior if comparison.non_inferiority != NonInferiority::NonInferior => {
                    comparison.non_inferiority_words()
                }
                _ => continue,
            };
            missing.push(format!("`{requirement}` is not shown on {leaf}: {words}"));
        }
    }
    Ok(missing)
}

/// The end of a run whose gate refuses: exit code 3.
pub fn refusal(missing: String) -> Failure {
    Failure::refused(missing)
        .hint("train on more rows, ask more questions, or ask for less in `require`; the scores are in eval/")
}

/// Every comparison that a requirement speaks of, as one family of claims.
fn comparisons<'a>(
    requirement: &Requirement,
    run: Evaluated<'a>,
    options: &ComparisonOptions,
) -> Result<Vec<(&'a str, Comparison)>> {
    let of_side = |side: Side| {
        let indices = 0..run.candidates.len();
        indices.filter(move |index| run.candidates[*index].side == side && run.candidates[*index].shots == 0)
    };
    let absent = |side: Side| {
        Failure::usage(format!("`require: {requirement}` speaks of a model that is not compared: {}", side.name()))
            .hint("name it in `compare`")
    };
    let first = of_side(requirement.first).next().ok_or_else(|| absent(requirement.first))?;
    of_side(requirement.second).next().ok_or_else(|| absent(requirement.second))?;
    let wanted = |leaf: &str| requirement.leaf.as_deref().is_none_or(|wanted| wanted == leaf);
    if !run.leaves.iter().any(|leaf| wanted(leaf)) {
        return Err(Failure::usage(format!("`require: {requirement}` names no leaf with a held-out test"))
            .hint(format!("leaves with a test: {}", run.leaves.join(", ")))
            .into());
    }
    let mut found = Vec::new();
    for second in of_side(requirement.second) {
        for (place, leaf) in run.leaves.iter().enumerate().filter(|(_, leaf)| wanted(leaf)) {
            let (first, second) = (&run.evaluations[first][place], &run.evaluations[second][place]);
            found.push((*leaf, compare(first, second, options)?));
        }
    }
    adjust_family(found.iter_mut().map(|(_, comparison)| comparison), options.alpha);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_and_written_as_they_stand() {
        for text in ["tuned > base", "tuned > base on skills/dates", "quantized non-inferior to tuned"] {
            assert_eq!(text.parse::<Requirement>().map(|read| read.to_string()).as_deref(), Ok(text));
        }
        for (text, what) in [
            ("tuned beats base", "is no requirement"),
            ("tuned > teacher", "no model `teacher`"),
            ("base > base", "against itself"),
            ("tuned > base on ", "names no leaf"),
        ] {
            let error = text.parse::<Requirement>().expect_err("it is wrong");
            assert!(error.contains(what) && error.contains("write `tuned > base`"), "{error}");
        }
    }
}
