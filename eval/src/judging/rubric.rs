//! Judges with criteria and levels of one's own.

use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::Message;
use espalier_inference::judge::{Judge, JudgeConfig, Reading};
use serde::{Deserialize, Serialize};

use super::calibration::CalibrationItem;
use super::proof::{Count, Proof};
use super::transcript::Transcript;
use crate::error::EvalError;

/// Longest reason with its level, in tokens.
const JUDGMENT_TOKENS: usize = 256;

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

/// A rubric and a judge that was asked how it can be read.
pub struct RubricJudge<'r, 't, 'w> {
    rubric: &'r Rubric,
    transcript: &'t mut Transcript<'w>,
    /// One a criterion.
    judges: Vec<Judge>,
}

impl<'r, 't, 'w> RubricJudge<'r, 't, 'w> {
    /// Asks the judge how it can be read.
    ///
    /// # Errors
    /// A rubric that cannot be judged by, and as [`Transcript::ask`].
    pub fn new(transcript: &'t mut Transcript<'w>, rubric: &'r Rubric) -> Result<Self, EvalError> {
        let problem = |problem| EvalError::Task { task: rubric.name.clone(), problem };
        rubric.validate().map_err(problem)?;
        let mut judges = Vec::with_capacity(rubric.criteria.len());
        for criterion in &rubric.criteria {
            let config = JudgeConfig {
                scale: labels(criterion.levels.len()),
                reading: rubric.reading,
                max_tokens: JUDGMENT_TOKENS,
                ..JudgeConfig::default()
            };
            let heard = transcript.probe(&Judge::probes(&config).map_err(problem)?)?;
            judges.push(Judge::new(&config, &heard).map_err(problem)?);
        }
        Ok(Self { rubric, transcript, judges })
    }

    /// How levels are read where not as the rubric says, and why.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.judges.iter().flat_map(|judge| judge.notes().iter().cloned()).collect();
        notes.dedup();
        notes
    }

    /// Judges answers by every criterion; greedy.
    ///
    /// # Errors
    /// As [`Transcript::ask`].
    pub fn judge(
        &mut self,
        items: &[RubricItem],
        on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<RubricJudgment>, EvalError> {
        let criteria = &self.rubric.criteria;
        let mut requests = Vec::with_capacity(items.len() * criteria.len());
        for item in items {
            for (criterion, judge) in criteria.iter().zip(&self.judges) {
                requests.extend(judge.requests(&[vec![question(criterion, item)]], 0));
            }
        }
        let replies = self.transcript.ask(&requests, on_reply)?;
        let total: f64 = criteria.iter().map(|criterion| criterion.weight).sum();
        let of_item = replies.chunks_exact(criteria.len()).map(|replies| {
            let read = self.judges.iter().zip(replies).map(|(judge, reply)| judge.read(&[reply.heard()]).score);
            let levels: Vec<Option<f64>> = read.collect();
            let weighted = criteria.iter().zip(&levels).map(|(criterion, level)| Some(criterion.weight * (*level)?));
            let texts = replies.iter().map(|reply| reply.heard().map_or_else(|failure| failure, |said| said.text));
            RubricJudgment {
                score: weighted.sum::<Option<f64>>().map(|sum| sum / total),
                texts: texts.collect(),
                levels,
            }
        });
        Ok(of_item.collect())
    }

    /// What planted answers show about the judge; it knows no pairs and no order.
    ///
    /// # Errors
    /// As [`Transcript::ask`].
    pub fn calibrate(
        &mut self,
        items: &[CalibrationItem],
        on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Proof, EvalError> {
        let planted = |item: &CalibrationItem, answer: &String| RubricItem {
            question: item.question.clone(),
            answer: answer.clone(),
            reference: None,
        };
        let planted: Vec<RubricItem> =
            items.iter().flat_map(|item| [&item.good, &item.bad].map(|answer| planted(item, answer))).collect();
        let found = self.judge(&planted, on_reply)?;
        let told_apart = found
            .chunks_exact(2)
            .filter(|pair| matches!((pair[0].score, pair[1].score), (Some(good), Some(bad)) if good > bad))
            .count();
        let unread = found.iter().filter(|found| found.score.is_none()).count();
        Ok(Proof {
            told_apart: Count { count: told_apart, of: items.len() },
            preferred: Count::default(),
            unread_ratings: Count { count: unread, of: found.len() },
            unread_verdicts: Count::default(),
            flips: Count::default(),
            unread: Count::default(),
            agreement: None,
            length_correlation: None,
        })
    }
}

/// The digits that stand for levels.
fn labels(count: usize) -> Vec<String> {
    (1..=count).map(|level| level.to_string()).collect()
}

/// What the judge is shown and asked; how to answer comes behind it.
fn question(criterion: &Criterion, item: &RubricItem) -> Message {
    let part = |name: &str, text: &str| format!("<{name}>\n{}\n</{name}>\n\n", text.trim());
    let mut text = part("question", &item.question) + &part("answer", &item.answer);
    if let Some(reference) = &item.reference {
        text.push_str(&part("right-answer", reference));
    }
    text.push_str(&format!("{}\n", criterion.question.trim()));
    for (label, level) in labels(criterion.levels.len()).iter().zip(&criterion.levels) {
        text.push_str(&format!("\n{label}. {}", level.trim()));
    }
    Message::new("user", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_sees_question_answer_and_levels() {
        let criterion = Criterion {
            name: "right".into(),
            question: "Is it right?".into(),
            levels: vec!["no".into(), "yes".into()],
            weight: 1.0,
        };
        let item = RubricItem { question: "1 + 1?".into(), answer: "2\n".into(), reference: Some("two".into()) };
        assert_eq!(
            question(&criterion, &item).content,
            "<question>\n1 + 1?\n</question>\n\n<answer>\n2\n</answer>\n\n<right-answer>\ntwo\n</right-answer>\n\n\
             Is it right?\n\n1. no\n2. yes"
        );
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
