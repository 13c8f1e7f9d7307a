//! The questions of a taxonomy as `InstructLab`'s MT-Bench-branch asks them, and two branches set side by side, leaf by leaf.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use espalier_taxonomy::{Leaf, LeafKind, Seed, TestItem};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::questions::Question;
use super::single::Judgment;
use crate::statistics::Interval;
use crate::statistics::mean::Mean;

/// Which questions of a leaf are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The seeds, as `InstructLab` does. What is trained on rows made of them has seen them.
    Seeds,
    /// The held-out test.
    HeldOut,
}

/// The questions of the skills among some leaves, one turn each, with the right answer as reference. Knowledge has
/// MMLU-branch. A question that stands in two leaves is asked for the first. What was said before the question of a seed stands in
/// its context, as the seed has it: the model answers the same conversation that the reference does.
pub fn branch_questions(leaves: &[Leaf], asked: Asked) -> Vec<Question> {
    let mut questions = Vec::new();
    let mut seen = BTreeSet::new();
    for leaf in leaves.iter().filter(|leaf| leaf.kind != LeafKind::Knowledge) {
        let found: Vec<Found<'_>> = match asked {
            Asked::Seeds => leaf.seeds.iter().map(Found::seed).collect(),
            Asked::HeldOut => leaf.test.iter().map(Found::item).collect(),
        };
        for Found { name, question, answer, context } in found {
            let question_id = question_number(&name);
            if !seen.insert(question_id) {
                continue;
            }
            let turn = match context {
                Some(context) => {
                    format!("Given the context below:\n{context}\nAnswer the following question: {question}")
                }
                None => question.to_owned(),
            };
            questions.push(Question {
                question_id,
                category: "taxonomy".to_owned(),
                turns: vec![turn],
                reference: Some(vec![answer.to_owned()]),
                qna_file: Some(format!("{}/qna.yaml", leaf.id)),
            });
        }
    }
    questions
}

/// A question of a leaf.
struct Found<'a> {
    /// What it is numbered by: all that is asked and said before its answer.
    name: Cow<'a, str>,
    question: &'a str,
    answer: &'a str,
    context: Option<Cow<'a, str>>,
}

impl<'a> Found<'a> {
    fn seed(seed: &'a Seed) -> Self {
        let text = seed.context.as_deref();
        let context = match (text, seed.said_before()) {
            (text, None) => text.map(Cow::Borrowed),
            (None, Some(said)) => Some(Cow::Owned(said)),
            (Some(text), Some(said)) => Some(Cow::Owned(format!("{}\n\n{said}", text.trim_end()))),
        };
        Self { name: seed.script(), question: &seed.question, answer: &seed.answer, context }
    }

    fn item(item: &'a TestItem) -> Self {
        let question = item.question.as_str();
        Self { name: question.into(), question, answer: &item.answer, context: item.context.as_deref().map(Cow::from) }
    }
}

/// The MD5 hash of a question as a number: so a question keeps its number from branch to branch.
fn question_number(question: &str) -> u128 {
    Md5::digest(question.as_bytes()).iter().fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// Two models on the questions of a leaf that are rated in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupChange {
    /// The leaf's file, or the category.
    pub group: String,
    /// Questions with a rating in both.
    pub questions: usize,
    /// Mean rating in the first.
    pub first: f64,
    /// Mean rating in the second.
    pub second: f64,
    /// 95 % interval of the mean difference, second less first (paired, Student's t); `None` for a single question.
    pub difference: Option<Interval>,
}

impl GroupChange {
    /// What the figures allow to say.
    pub fn verdict(&self) -> &'static str {
        match self.difference {
            Some(interval) if interval.low > 0.0 => "better",
            Some(interval) if interval.high < 0.0 => "worse",
            Some(interval) if interval.low >= -SMALL && interval.high <= SMALL => "as good",
            _ => "too few questions to tell",
        }
    }
}

/// Half a rating of ten: a difference below it is none.
const SMALL: f64 = 0.5;

/// Sets the ratings of two models, or of two branches, side by side, leaf by leaf, over the questions that both have.
pub fn compare_ratings(questions: &[Question], first: &[Judgment], second: &[Judgment]) -> Vec<GroupChange> {
    let scores = |judgments: &[Judgment]| -> BTreeMap<(u128, usize), f64> {
        judgments.iter().filter_map(|found| Some(((found.question_id, found.turn), found.score?))).collect()
    };
    let (first, second) = (scores(first), scores(second));
    let mut groups: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for question in questions {
        for turn in 1..=question.turns.len() {
            let place = (question.question_id, turn);
            if let (Some(a), Some(b)) = (first.get(&place), second.get(&place)) {
                groups.entry(question.group()).or_default().push((*a, *b));
            }
        }
    }
    let changes = groups.into_iter().map(|(group, pairs)| {
        let count = pairs.len() as f64;
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
        GroupChange {
            group: group.to_owned(),
            questions: pairs.len(),
            first: pairs.iter().map(|pair| pair.0).sum::<f64>() / count,
            second: pairs.iter().map(|pair| pair.1).sum::<f64>() / count,
            difference: (pairs.len() > 1).then(|| Mean::of(&differences).interval(0.95)),
        }
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::Exchange;

    use super::*;

    /// `int(hashlib.md5(b"What day is it?").hexdigest(), 16)` of Python.
    const NUMBER: u128 = 161491809059172192680321060999796126583;

    #[test]
    fn questions_are_numbered_and_worded_as_instructlab_does() {
        let seed = |question: &str, context: Option<&str>| Seed {
            question: question.into(),
            answer: "A".into(),
            context: context.map(Into::into),
            ..Seed::default()
        };
        let leaf = Leaf {
            id: "compositional_skills/dates".into(),
            seeds: vec![seed("What day is it?", None), seed("When?", Some("At noon.")), seed("When?", None)],
            test: vec![TestItem { question: "Which year?".into(), answer: "2026".into(), ..TestItem::default() }],
            ..Leaf::default()
        };
        let knowledge = Leaf { kind: LeafKind::Knowledge, ..leaf.clone() };
        let found = branch_questions(&[knowledge, leaf.clone()], Asked::Seeds);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].question_id, NUMBER);
        assert_eq!(found[1].turns, ["Given the context below:\nAt noon.\nAnswer the following question: When?"]);
        assert_eq!(found[1].qna_file.as_deref(), Some("compositional_skills/dates/qna.yaml"));
        assert!(found[0].reference_for_judges().is_some());
        let line = serde_json::to_string(&found[0]).unwrap();
        assert!(line.starts_with(&format!("{{\"question_id\":\"{NUMBER}\",\"category\":\"taxonomy\"")), "{line}");
        assert_eq!(serde_json::from_str::<Question>(&line).unwrap(), found[0]);
        assert_eq!(branch_questions(&[leaf], Asked::HeldOut)[0].turns, ["Which year?"]);
    }

    #[test]
    fn what_was_said_before_a_question_is_its_context() {
        let seed = |user: &str, context: Option<&str>| Seed {
            history: vec![Exchange { user: user.into(), assistant: "Yes.".into() }],
            question: "And why?".into(),
            answer: "So.".into(),
            context: context.map(Into::into),
            ..Seed::default()
        };
        let seeds = vec![seed("Up?", None), seed("Down?", Some("A hill.\n")), seed("Up?", None)];
        let found = branch_questions(&[Leaf { seeds, ..Leaf::default() }], Asked::Seeds);
        let asked: Vec<&str> = found.iter().map(|question| question.turns[0].as_str()).collect();
        assert_eq!(
            asked,
            [
                "Given the context below:\nUser: Up?\nAssistant: Yes.\nAnswer the following question: And why?",
                "Given the context below:\nA hill.\n\nUser: Down?\nAssistant: Yes.\nAnswer the following question: And why?",
            ],
            "two that end alike are two, one that stands twice is one"
        );
        assert_eq!(found[0].reference.as_deref(), Some(&["So.".to_owned()][..]));
    }

    #[test]
    fn branches_are_compared_leaf_by_leaf() {
        let question = |id: u128, file: &str| Question {
            question_id: id,
            category: "taxonomy".into(),
            turns: vec!["Q".into()],
            reference: None,
            qna_file: Some(file.into()),
        };
        let questions = [question(1, "a"), question(2, "a"), question(3, "a"), question(4, "b"), question(5, "c")];
        let judged = |scores: [Option<f64>; 5]| -> Vec<Judgment> {
            let judgments = questions.iter().zip(scores).map(|(question, score)| Judgment {
                question_id: question.question_id,
                turn: 1,
                prompt: String::new(),
                user_prompt: String::new(),
                judgment: String::new(),
                score,
                characters: 1,
            });
            judgments.collect()
        };
        let first = judged([Some(4.0), Some(5.0), Some(6.0), Some(5.0), Some(7.0)]);
        let second = judged([Some(6.0), Some(7.5), Some(8.0), Some(9.0), None]);
        let found = compare_ratings(&questions, &first, &second);
        let told: Vec<_> = found.iter().map(|leaf| (leaf.group.as_str(), leaf.questions, leaf.verdict())).collect();
        assert_eq!(told, [("a", 3, "better"), ("b", 1, "too few questions to tell")]);
        assert!((found[0].second - found[0].first - 6.5 / 3.0).abs() < 1e-9);
    }
}
