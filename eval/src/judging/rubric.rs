//! Judges with criteria and levels of one's own.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use espalier_inference::{Constraint, Message, Prompt, Request};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::calibration::CalibrationItem;
use super::proof::{Count, Proof};
use super::transcript::{Reply, Transcript};
use crate::error::EvalError;

/// Alternatives asked for with a level's token: all levels stand among them, or their probability does not matter.
const ALTERNATIVES: usize = 20;
/// Longest reason with its level, in tokens.
const JUDGMENT_TOKENS: usize = 256;
/// Longest reason in JSON, in characters: a small model may never end it otherwise.
const LONGEST_REASON: usize = 240;

/// How a level is read from the judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// One digit is written; the log-probabilities of the digits give the mean level. Where an engine tells none, the digit
    /// counts.
    #[default]
    Expected,
    /// A reason and the level as JSON, held to a schema while it is written.
    Json,
    /// A reason and a line with the level as free text, for servers that hold to no form.
    Text,
}

/// What a judge looks at, each criterion in a request of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rubric {
    /// Names it in results.
    pub name: String,
    /// How levels are read.
    #[serde(default)]
    pub reading: Reading,
    /// What is looked at.
    pub criteria: Vec<Criterion>,
}

/// One thing that a judge looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Names it in results.
    pub name: String,
    /// The question to the judge.
    pub question: String,
    /// What an answer is like at each level, the worst first; two to nine.
    pub levels: Vec<String>,
    /// Its weight in the score.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl Rubric {
    /// Reads a rubric from YAML and checks it.
    ///
    /// # Errors
    /// When the file cannot be read, has another form, or a criterion cannot be judged.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(EvalError::file(path, "read the rubric"))?;
        let line = |line, problem| EvalError::Line { path: path.to_owned(), line, problem };
        let rubric: Self = serde_yaml::from_str(&text)
            .map_err(|error| line(error.location().map_or(1, |place| place.line()), error.to_string()))?;
        rubric.validate().map_err(|problem| line(1, problem))?;
        Ok(rubric)
    }

    /// The first thing that cannot be, with the remedy.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        if self.criteria.is_empty() {
            return Err(format!("the rubric {:?} has no criteria; name at least one", self.name));
        }
        for (index, criterion) in self.criteria.iter().enumerate() {
            let name = &criterion.name;
            if self.criteria[..index].iter().any(|other| other.name == *name) {
                return Err(format!("the criterion {name:?} stands twice; name each once"));
            }
            if !(2..=9).contains(&criterion.levels.len()) {
                let count = criterion.levels.len();
                return Err(format!("the criterion {name:?} has {count} levels; describe 2 to 9, the worst first"));
            }
            if !(criterion.weight.is_finite() && criterion.weight > 0.0) {
                return Err(format!(
                    "the criterion {name:?} has the weight {}; give a number above 0",
                    criterion.weight
                ));
            }
        }
        Ok(())
    }
}

/// An answer to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RubricItem {
    /// What was asked.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// A right answer to judge by.
    pub reference: Option<String>,
}

/// What a judge says about one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RubricJudgment {
    /// For each criterion the level from 0 (the worst) to 1; `None` where the judgment cannot be read.
    pub levels: Vec<Option<f64>>,
    /// What the judge wrote on each.
    pub texts: Vec<String>,
    /// The weighted mean of the levels; `None` where one cannot be read.
    pub score: Option<f64>,
}

/// Judges answers by every criterion; greedy.
///
/// # Errors
/// As [`Transcript::ask`].
pub fn judge_by_rubric(
    judge: &mut Transcript<'_>,
    rubric: &Rubric,
    items: &[RubricItem],
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<RubricJudgment>, EvalError> {
    rubric.validate().map_err(|problem| EvalError::Task { task: rubric.name.clone(), problem })?;
    let tokens = match rubric.reading {
        Reading::Expected => level_tokens(judge, rubric)?,
        Reading::Json | Reading::Text => Vec::new(),
    };
    let requests: Vec<Request> = items
        .iter()
        .flat_map(|item| rubric.criteria.iter().map(move |criterion| request(rubric.reading, criterion, item)))
        .collect();
    let replies = judge.ask(&requests, on_reply)?;
    let total: f64 = rubric.criteria.iter().map(|criterion| criterion.weight).sum();
    Ok(replies
        .chunks_exact(rubric.criteria.len())
        .map(|replies| {
            let pairs = rubric.criteria.iter().zip(replies);
            let levels: Vec<Option<f64>> = pairs
                .map(|(criterion, reply)| read_level(rubric.reading, criterion.levels.len(), &tokens, reply))
                .collect();
            let weighted =
                rubric.criteria.iter().zip(&levels).map(|(criterion, level)| Some(criterion.weight * (*level)?));
            RubricJudgment {
                score: weighted.sum::<Option<f64>>().map(|sum| sum / total),
                texts: replies
                    .iter()
                    .map(|reply| reply.text.clone().or_else(|| reply.failure.clone()).unwrap_or_default())
                    .collect(),
                levels,
            }
        })
        .collect())
}

/// What planted answers show about a judge with this rubric; it knows no pairs and no order.
///
/// # Errors
/// As [`Transcript::ask`].
pub fn calibrate_by_rubric(
    judge: &mut Transcript<'_>,
    rubric: &Rubric,
    items: &[CalibrationItem],
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Proof, EvalError> {
    let planted: Vec<RubricItem> = items
        .iter()
        .flat_map(|item| {
            [&item.good, &item.bad].map(|answer| RubricItem {
                question: item.question.clone(),
                answer: answer.clone(),
                reference: None,
            })
        })
        .collect();
    let found = judge_by_rubric(judge, rubric, &planted, on_reply)?;
    let told_apart = found
        .chunks_exact(2)
        .filter(|pair| matches!((pair[0].score, pair[1].score), (Some(good), Some(bad)) if good > bad))
        .count();
    Ok(Proof {
        told_apart: Count { count: told_apart, of: items.len() },
        preferred: Count::default(),
        unread_ratings: Count { count: found.iter().filter(|found| found.score.is_none()).count(), of: found.len() },
        unread_verdicts: Count::default(),
        flips: Count::default(),
        unread: Count::default(),
        agreement: None,
        length_correlation: None,
    })
}

fn labels(count: usize) -> Vec<String> {
    (1..=count).map(|level| level.to_string()).collect()
}

/// The token of each level's digit, asked of the judge itself; empty where the engine tells no log-probabilities or two levels
/// share a token.
fn level_tokens(judge: &mut Transcript<'_>, rubric: &Rubric) -> Result<Vec<u32>, EvalError> {
    let most = rubric.criteria.iter().map(|criterion| criterion.levels.len()).max().unwrap_or(0);
    let probes: Vec<Request> = labels(most)
        .into_iter()
        .map(|label| Request {
            constraint: Some(Arc::new(Constraint::Choice(vec![label.clone()]))),
            top_logprobs: ALTERNATIVES,
            ..Request::new(Prompt::Chat(vec![Message::new("user", format!("Write {label}."))]), 4)
        })
        .collect();
    let replies = judge.ask(&probes, &mut |_, _| ControlFlow::Continue(()))?;
    let mut tokens: Vec<u32> = Vec::new();
    for reply in &replies {
        match reply.first.first() {
            Some((token, _)) if !tokens.contains(token) => tokens.push(*token),
            _ => return Ok(Vec::new()),
        }
    }
    Ok(tokens)
}

fn request(reading: Reading, criterion: &Criterion, item: &RubricItem) -> Request {
    let mut text =
        format!("<question>\n{}\n</question>\n\n<answer>\n{}\n</answer>\n\n", item.question.trim(), item.answer.trim());
    if let Some(reference) = &item.reference {
        text.push_str(&format!("<right-answer>\n{}\n</right-answer>\n\n", reference.trim()));
    }
    text.push_str(&format!("{}\n\n", criterion.question.trim()));
    for (label, level) in labels(criterion.levels.len()).iter().zip(&criterion.levels) {
        text.push_str(&format!("{label}. {}\n", level.trim()));
    }
    let labels = labels(criterion.levels.len());
    let (wanted, constraint, max_tokens) = match reading {
        Reading::Expected => ("Answer with the number of the level alone.", Some(Constraint::Choice(labels)), 1),
        Reading::Json => (
            "Answer with a JSON object: \"reason\" is your reason in one sentence, \"level\" is the number of the level.",
            Some(Constraint::JsonSchema(json!({
                "type": "object",
                "properties": {"reason": {"type": "string", "maxLength": LONGEST_REASON}, "level": {"enum": labels}},
                "required": ["reason", "level"],
                "additionalProperties": false,
            }))),
            JUDGMENT_TOKENS,
        ),
        Reading::Text => (
            "Give your reason in one sentence. Then write the number of the level on a line of its own in this form: Level: N",
            None,
            JUDGMENT_TOKENS,
        ),
    };
    text.push('\n');
    text.push_str(wanted);
    Request {
        constraint: constraint.map(Arc::new),
        top_logprobs: if reading == Reading::Expected { ALTERNATIVES } else { 0 },
        ..Request::new(Prompt::Chat(vec![Message::new("user", text)]), max_tokens)
    }
}

/// The level from 0 to 1.
fn read_level(reading: Reading, count: usize, tokens: &[u32], reply: &Reply) -> Option<f64> {
    let best = (count - 1) as f64;
    if reading == Reading::Expected && !reply.first.is_empty() && tokens.len() >= count {
        let probability = |token: &u32| {
            let found = reply.first.iter().find(|(id, _)| id == token);
            found.map_or(0.0, |(_, logprob)| f64::from(*logprob).exp())
        };
        let probabilities: Vec<f64> = tokens[..count].iter().map(probability).collect();
        let all: f64 = probabilities.iter().sum();
        if all > 0.0 {
            let mean: f64 = probabilities.iter().enumerate().map(|(level, share)| level as f64 * share).sum();
            return Some(mean / all / best);
        }
    }
    let text = reply.text.as_deref()?.trim();
    let label = match reading {
        Reading::Expected => text.to_owned(),
        Reading::Json => match serde_json::from_str::<Value>(text).ok()?.get("level")? {
            Value::String(label) => label.clone(),
            other => other.to_string(),
        },
        Reading::Text => last_level(text)?,
    };
    let level = labels(count).iter().position(|known| *known == label)?;
    Some(level as f64 / best)
}

fn last_level(text: &str) -> Option<String> {
    let pattern = Regex::new(r"(?i)\blevel\b[^\w\n]{0,8}(\d+)\b").ok()?;
    Some(pattern.captures_iter(text).last()?.get(1)?.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_or_left_out() {
        let text = |text: &str| Reply { text: Some(text.into()), ..Reply::default() };
        let read = |reading, reply: &Reply| read_level(reading, 3, &[10, 11, 12], reply);
        assert_eq!(read(Reading::Text, &text("Level 1? No.\n**Level**: 3")), Some(1.0));
        assert_eq!(read(Reading::Text, &text("Level: 4")), None);
        assert_eq!(read(Reading::Json, &text(r#"{"reason": "", "level": "2"}"#)), Some(0.5));
        assert_eq!(read(Reading::Json, &text(r#"{"level": 1}"#)), Some(0.0));
        assert_eq!(read(Reading::Expected, &text("2")), Some(0.5));
        assert_eq!(read(Reading::Expected, &Reply { failure: Some("too long".into()), ..Reply::default() }), None);
        // 0.2 at level 2 and 0.6 at level 3: (0.2 * 0.5 + 0.6 * 1) / 0.8.
        let first = vec![(12, 0.6_f32.ln()), (7, 0.2_f32.ln()), (11, 0.2_f32.ln())];
        let found = read(Reading::Expected, &Reply { first, ..text("3") }).unwrap();
        assert!((found - 0.875).abs() < 1e-6, "{found}");
    }

    #[test]
    fn rubrics_that_cannot_be_judged_by_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rubric.yaml");
        let problem = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Rubric::read(&path).unwrap_err().to_string()
        };
        assert!(problem("name: r\ncriteria: []").contains("no criteria"));
        let criterion =
            |more: &str| format!("name: r\ncriteria:\n- {{name: a, question: q, levels: [bad, good]{more}}}\n");
        assert!(
            problem(&criterion(", wieght: 2")).contains("rubric.yaml:3: "),
            "{}",
            problem(&criterion(", wieght: 2"))
        );
        assert!(problem(&criterion(", weight: 0")).contains("above 0"));
        assert!(problem(&criterion("").replace(", good", "")).contains("2 to 9"));
        std::fs::write(&path, criterion("")).unwrap();
        let rubric = Rubric::read(&path).unwrap();
        assert_eq!((rubric.reading, rubric.criteria[0].levels.len()), (Reading::Expected, 2));
    }
}
