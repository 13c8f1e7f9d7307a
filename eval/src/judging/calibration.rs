//! Planted answers: what a judge must be able to tell apart before it is believed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::answers::Answers;
use super::pairs::compare_answers;
use super::prompts::JudgePrompts;
use super::proof::{Count, Proof};
use super::questions::Question;
use super::rating::Winner;
use super::single::rate;
use super::transcript::Transcript;
use crate::error::EvalError;

/// A question with an answer that is good and one that is bad. The bad one is longer as often as not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationItem {
    /// What is asked.
    pub question: String,
    /// A good answer.
    pub good: String,
    /// A bad one.
    pub bad: String,
    /// What is bad about it.
    pub fault: String,
}

/// The items that come with the program.
///
/// # Errors
/// Never with those.
pub fn shipped_items() -> Result<Vec<CalibrationItem>, EvalError> {
    let rows = include_str!("../../data/judge_calibration.jsonl").lines().enumerate();
    rows.map(|(line, row)| {
        serde_json::from_str(row).map_err(|error| EvalError::Line {
            path: Path::new("judge_calibration.jsonl").to_owned(),
            line: line + 1,
            problem: error.to_string(),
        })
    })
    .collect()
}

/// Has a judge rate the good and the bad answers, and compare each pair in both orders, with the prompts of a first turn.
///
/// # Errors
/// As [`Transcript::ask`].
pub fn calibrate(
    judge: &mut Transcript<'_>,
    items: &[CalibrationItem],
    prompts: &JudgePrompts,
    max_tokens: usize,
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Proof, EvalError> {
    let questions: Vec<Question> = items
        .iter()
        .enumerate()
        .map(|(index, item)| Question {
            question_id: index as u128,
            category: "calibration".to_owned(),
            turns: vec![item.question.clone()],
            reference: None,
            qna_file: None,
        })
        .collect();
    let of = |text: fn(&CalibrationItem) -> &String| -> Answers {
        items.iter().enumerate().map(|(index, item)| (index as u128, vec![text(item).clone()])).collect()
    };
    let (good, bad) = (of(|item| &item.good), of(|item| &item.bad));
    let mut scores = |answers: &Answers| -> Result<BTreeMap<u128, Option<f64>>, EvalError> {
        let judgments = rate(judge, &questions, answers, prompts, max_tokens, on_reply)?;
        Ok(judgments.into_iter().map(|found| (found.question_id, found.score)).collect())
    };
    let (of_good, of_bad) = (scores(&good)?, scores(&bad)?);
    let pairs = compare_answers(judge, &questions, [&good, &bad], prompts, max_tokens, on_reply)?;
    let score = |of: &BTreeMap<u128, Option<f64>>, id: u128| of.get(&id).copied().flatten();
    let told_apart = questions
        .iter()
        .filter(|question| {
            let found = (score(&of_good, question.question_id), score(&of_bad, question.question_id));
            matches!(found, (Some(good), Some(bad)) if good > bad)
        })
        .count();
    let unread = of_good.values().chain(of_bad.values()).filter(|score| score.is_none()).count();
    let verdicts = pairs.iter().flat_map(|pair| pair.winners);
    let unread_verdicts = verdicts.clone().filter(Option::is_none).count();
    let read_twice = pairs.iter().filter(|pair| pair.winners.iter().all(Option::is_some)).count();
    Ok(Proof {
        told_apart: Count { count: told_apart, of: items.len() },
        preferred: Count {
            count: pairs.iter().filter(|pair| pair.winner() == Some(Winner::First)).count(),
            of: items.len(),
        },
        unread_ratings: Count { count: unread, of: 2 * items.len() },
        unread_verdicts: Count { count: unread_verdicts, of: 2 * pairs.len() },
        flips: Count { count: pairs.iter().filter(|pair| pair.flipped()).count(), of: read_twice },
        unread: Count::default(),
        agreement: None,
        length_correlation: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_items_do_not_reward_length() {
        let items = shipped_items().unwrap();
        let longer = items.iter().filter(|item| item.bad.len() > item.good.len()).count();
        assert_eq!((items.len(), longer), (20, 12));
        assert!(items.iter().all(|item| !item.good.is_empty() && !item.bad.is_empty() && item.good != item.bad));
    }
}
