//! Ratings of single answers.

use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::{Prompt, Request};
use serde::{Deserialize, Serialize};

use super::answers::{Answers, merge_lines};
use super::prompts::JudgePrompts;
use super::questions::{Question, question_id};
use super::rating::read_rating;
use super::transcript::Transcript;
use crate::error::EvalError;

/// What a judge says about one turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgment {
    /// The question.
    #[serde(with = "question_id")]
    pub question_id: u128,
    /// The turn, from 1.
    pub turn: usize,
    /// The name of the prompt.
    pub prompt: String,
    /// What the judge read.
    pub user_prompt: String,
    /// What it wrote.
    pub judgment: String,
    /// The rating; `None` where the text holds none or there is no text.
    pub score: Option<f64>,
    /// Length of the judged answer in characters.
    pub characters: usize,
}

/// Has every answered turn rated from 1 to 10, the first two turns of each question; greedy.
///
/// # Errors
/// As [`Transcript::ask`].
pub fn rate(
    judge: &mut Transcript<'_>,
    questions: &[Question],
    answers: &Answers,
    prompts: &JudgePrompts,
    max_tokens: usize,
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Judgment>, EvalError> {
    let mut judgments = Vec::new();
    let mut requests = Vec::new();
    for question in questions {
        let given = answers.get(&question.question_id).map_or(&[][..], Vec::as_slice);
        for turn in 0..given.len().min(question.turns.len()).min(2) {
            let reference = question.reference_for_judges();
            let prompt = prompts.get(false, turn == 1, reference.is_some());
            let mut values = Values::of(question, reference);
            values.answers("answer", given);
            let filled = prompt.fill(&values.pairs());
            requests.push(Request::new(Prompt::Chat(prompt.messages(&filled)), max_tokens));
            judgments.push(Judgment {
                question_id: question.question_id,
                turn: turn + 1,
                prompt: prompt.name,
                user_prompt: filled,
                judgment: String::new(),
                score: None,
                characters: given[turn].chars().count(),
            });
        }
    }
    for (judgment, reply) in judgments.iter_mut().zip(judge.ask(&requests, on_reply)?) {
        judgment.score = reply.text.as_deref().and_then(read_rating);
        judgment.judgment = reply.text.or(reply.failure).unwrap_or_default();
    }
    Ok(judgments)
}

/// What the names in a prompt stand for.
pub(super) struct Values<'a> {
    values: Vec<(String, &'a str)>,
}

impl<'a> Values<'a> {
    pub(super) fn of(question: &'a Question, reference: Option<&'a [String]>) -> Self {
        let mut values = Vec::new();
        for (index, turn) in question.turns.iter().enumerate() {
            values.push((format!("question_{}", index + 1), turn.as_str()));
        }
        values.extend(question.turns.first().map(|turn| ("question".to_owned(), turn.as_str())));
        for (index, text) in reference.unwrap_or_default().iter().enumerate() {
            values.push((format!("ref_answer_{}", index + 1), text.as_str()));
        }
        Self { values }
    }

    pub(super) fn answers(&mut self, name: &str, turns: &'a [String]) {
        for (index, turn) in turns.iter().enumerate() {
            self.values.push((format!("{name}_{}", index + 1), turn.as_str()));
        }
        self.values.extend(turns.first().map(|turn| (name.to_owned(), turn.as_str())));
    }

    pub(super) fn pairs(&self) -> Vec<(&str, &'a str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

/// Writes judgments in the form of `FastChat`'s `model_judgment/JUDGE_single.jsonl`. A judgment without a score has -1 there,
/// which its readers leave out too. Judgments of other models in the file stay.
///
/// # Errors
/// When the file cannot be written.
pub fn write_judgments(path: &Path, model: &str, judge: &str, judgments: &[Judgment]) -> Result<(), EvalError> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(with = "question_id")]
        question_id: u128,
        model: &'a str,
        judge: [&'a str; 2],
        user_prompt: &'a str,
        judgment: &'a str,
        score: f64,
        turn: usize,
        tstamp: f64,
    }
    let lines = judgments.iter().map(|found| Line {
        question_id: found.question_id,
        model,
        judge: [judge, &found.prompt],
        user_prompt: &found.user_prompt,
        judgment: &found.judgment,
        score: found.score.unwrap_or(-1.0),
        turn: found.turn,
        tstamp: 0.0,
    });
    merge_lines(path, lines, |line| line["model"].to_string())
}
