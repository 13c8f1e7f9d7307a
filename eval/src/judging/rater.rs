//! What a judge rates by: prompts for a rating from 1 to 10, or a rubric.

use std::ops::ControlFlow;

use super::answers::Answers;
use super::calibration::{CalibrationItem, calibrate};
use super::prompts::JudgePrompts;
use super::proof::Proof;
use super::questions::Question;
use super::rubric::{Rubric, RubricItem, RubricJudge, RubricJudgment};
use super::single::{Judgment, rate};
use super::transcript::Transcript;
use crate::error::EvalError;

/// What a judge rates by.
#[derive(Clone, Debug)]
pub enum Rater {
    /// It writes a rating, and compares answers in pairs.
    Prompts(JudgePrompts),
    /// It says a level for each criterion. The weighted mean of the levels becomes a rating from 1 to 10.
    Rubric(Rubric),
}

impl Rater {
    /// What planted answers show about the judge.
    ///
    /// # Errors
    /// As [`Transcript::ask`].
    pub(super) fn calibrate(
        &self,
        judge: &mut Transcript<'_>,
        items: &[CalibrationItem],
        max_tokens: usize,
        on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Proof, EvalError> {
        match self {
            Self::Prompts(prompts) => calibrate(judge, items, prompts, max_tokens, on_reply),
            Self::Rubric(rubric) => RubricJudge::new(judge, rubric)?.calibrate(items, on_reply),
        }
    }

    /// Has every answered turn rated from 1 to 10, the first two turns of each question; greedy.
    ///
    /// # Errors
    /// As [`Transcript::ask`].
    pub(super) fn rate(
        &self,
        judge: &mut Transcript<'_>,
        questions: &[Question],
        answers: &Answers,
        max_tokens: usize,
        on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<Judgment>, EvalError> {
        match self {
            Self::Prompts(prompts) => rate(judge, questions, answers, prompts, max_tokens, on_reply),
            Self::Rubric(rubric) => {
                let places = turns(questions, answers);
                let items: Vec<RubricItem> =
                    places.iter().map(|(question, given, turn)| item(question, given, *turn)).collect();
                let found = RubricJudge::new(judge, rubric)?.judge(&items, on_reply)?;
                let judgments = places.iter().zip(&items).zip(found);
                Ok(judgments.map(|((place, item), found)| judgment(rubric, place, item, &found)).collect())
            }
        }
    }
}

/// Question, answers and turn (from 0).
type Place<'a> = (&'a Question, &'a [String], usize);

fn turns<'a>(questions: &'a [Question], answers: &'a Answers) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    for question in questions {
        let given = answers.get(&question.question_id).map_or(&[][..], Vec::as_slice);
        places.extend((0..given.len().min(question.turns.len()).min(2)).map(|turn| (question, given, turn)));
    }
    places
}

/// A turn with what was said before it.
fn item(question: &Question, given: &[String], turn: usize) -> RubricItem {
    let before = (0..turn).map(|at| format!("User: {}\n\nAssistant: {}\n\n", question.turns[at], given[at]));
    let mut asked: String = before.collect();
    if turn > 0 {
        asked.push_str("User: ");
    }
    asked.push_str(&question.turns[turn]);
    let reference = question.reference_for_judges().and_then(|reference| reference.get(turn).cloned());
    RubricItem { question: asked, answer: given[turn].clone(), reference }
}

fn judgment(rubric: &Rubric, place: &Place<'_>, item: &RubricItem, found: &RubricJudgment) -> Judgment {
    let (question, given, turn) = place;
    let texts = rubric.criteria.iter().zip(&found.texts).map(|(criterion, text)| format!("{}: {text}", criterion.name));
    Judgment {
        question_id: question.question_id,
        turn: turn + 1,
        prompt: rubric.name.clone(),
        user_prompt: item.question.clone(),
        judgment: texts.collect::<Vec<_>>().join("\n"),
        score: found.score.map(|score| 1.0 + 9.0 * score),
        characters: given[*turn].chars().count(),
    }
}
