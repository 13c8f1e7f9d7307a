//! The answers of two models side by side, in both orders.

use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::{Prompt, Request};
use serde::{Deserialize, Serialize};

use super::answers::{Answers, merge_lines};
use super::prompts::JudgePrompts;
use super::questions::{Question, question_id};
use super::rating::{Winner, read_winner};
use super::single::Values;
use super::transcript::Transcript;
use crate::error::EvalError;

/// What a judge says about one turn of two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairJudgment {
    /// The question.
    #[serde(with = "question_id")]
    pub question_id: u128,
    /// The turn, from 1.
    pub turn: usize,
    /// The name of the prompt.
    pub prompt: String,
    /// What the judge read, in both orders.
    pub user_prompts: [String; 2],
    /// What it wrote.
    pub judgments: [String; 2],
    /// Whom it prefers, named as in the first order; `None` where the text holds no verdict.
    pub winners: [Option<Winner>; 2],
}

impl PairJudgment {
    /// Whom the judge prefers: a model that it prefers in both orders, else neither. `None` where a verdict cannot be read.
    pub fn winner(&self) -> Option<Winner> {
        match self.winners {
            [Some(first), Some(second)] if first == second => Some(first),
            [Some(_), Some(_)] => Some(Winner::Tie),
            _ => None,
        }
    }

    /// Whether the verdict changed with the order.
    pub fn flipped(&self) -> bool {
        matches!(self.winners, [Some(first), Some(second)] if first != second)
    }
}

/// How often the first of two models wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    /// Turns that the first wins in both orders.
    pub wins: usize,
    /// Turns that the second wins in both orders.
    pub losses: usize,
    /// Turns without a winner, those where the orders disagree among them.
    pub ties: usize,
    /// Turns where the orders disagree.
    pub flips: usize,
    /// Turns without a verdict in one order or both: in none of the counts above.
    pub failures: usize,
}

impl Pairs {
    /// The counts of judgments.
    pub fn new(judgments: &[PairJudgment]) -> Self {
        let mut pairs = Self::default();
        for judgment in judgments {
            match judgment.winner() {
                Some(Winner::First) => pairs.wins += 1,
                Some(Winner::Second) => pairs.losses += 1,
                Some(Winner::Tie) => pairs.ties += 1,
                None => pairs.failures += 1,
            }
            pairs.flips += usize::from(judgment.flipped());
        }
        pairs
    }
}

/// Has every turn that both models answered compared in both orders; greedy.
///
/// # Errors
/// As [`Transcript::ask`].
pub fn compare_answers(
    judge: &mut Transcript<'_>,
    questions: &[Question],
    answers: [&Answers; 2],
    prompts: &JudgePrompts,
    max_tokens: usize,
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<PairJudgment>, EvalError> {
    let mut judgments = Vec::new();
    let mut requests = Vec::new();
    for question in questions {
        let given = answers.map(|answers| answers.get(&question.question_id).map_or(&[][..], Vec::as_slice));
        let turns = given[0].len().min(given[1].len()).min(question.turns.len()).min(2);
        for turn in 0..turns {
            let reference = question.reference_for_judges();
            let prompt = prompts.get(true, turn == 1, reference.is_some());
            let user_prompts = [[given[0], given[1]], [given[1], given[0]]].map(|[a, b]| {
                let mut values = Values::of(question, reference);
                values.answers("answer_a", a);
                values.answers("answer_b", b);
                prompt.fill(&values.pairs())
            });
            let ask = |filled: &String| Request::new(Prompt::Chat(prompt.messages(filled)), max_tokens);
            requests.extend(user_prompts.iter().map(ask));
            judgments.push(PairJudgment {
                question_id: question.question_id,
                turn: turn + 1,
                prompt: prompt.name.clone(),
                user_prompts,
                judgments: [const { String::new() }; 2],
                winners: [None; 2],
            });
        }
    }
    let replies = judge.ask(&requests, on_reply)?;
    for (judgment, replies) in judgments.iter_mut().zip(replies.chunks_exact(2)) {
        let winners = [0, 1].map(|order| replies[order].text.as_deref().and_then(read_winner));
        judgment.winners = [winners[0], winners[1].map(Winner::swapped)];
        judgment.judgments = [0, 1].map(|order| {
            let reply = &replies[order];
            reply.text.clone().or_else(|| reply.failure.clone()).unwrap_or_default()
        });
    }
    Ok(judgments)
}

/// Writes judgments in the form of `FastChat`'s `model_judgment/JUDGE_pair.jsonl`. Those of other pairs in the file stay.
///
/// # Errors
/// When the file cannot be written.
pub fn write_pairs(path: &Path, models: [&str; 2], judge: &str, judgments: &[PairJudgment]) -> Result<(), EvalError> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(with = "question_id")]
        question_id: u128,
        model_1: &'a str,
        model_2: &'a str,
        g1_winner: &'static str,
        g2_winner: &'static str,
        judge: [&'a str; 2],
        g1_user_prompt: &'a str,
        g1_judgment: &'a str,
        g2_user_prompt: &'a str,
        g2_judgment: &'a str,
        turn: usize,
        tstamp: f64,
    }
    let name = |winner: Option<Winner>| match winner {
        Some(Winner::First) => "model_1",
        Some(Winner::Second) => "model_2",
        Some(Winner::Tie) => "tie",
        None => "error",
    };
    let lines = judgments.iter().map(|found| Line {
        question_id: found.question_id,
        model_1: models[0],
        model_2: models[1],
        g1_winner: name(found.winners[0]),
        g2_winner: name(found.winners[1]),
        judge: [judge, &found.prompt],
        g1_user_prompt: &found.user_prompts[0],
        g1_judgment: &found.judgments[0],
        g2_user_prompt: &found.user_prompts[1],
        g2_judgment: &found.judgments[1],
        turn: found.turn,
        tstamp: 0.0,
    });
    merge_lines(path, lines, |line| [&line["model_1"], &line["model_2"]].map(ToString::to_string).concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_win_counts_when_both_orders_agree() {
        let judged = |winners| PairJudgment {
            question_id: 1,
            turn: 1,
            prompt: String::new(),
            user_prompts: [const { String::new() }; 2],
            judgments: [const { String::new() }; 2],
            winners,
        };
        let (first, second, tie) = (Some(Winner::First), Some(Winner::Second), Some(Winner::Tie));
        let all =
            [[first, first], [second, second], [first, second], [first, tie], [tie, tie], [first, None]].map(judged);
        assert_eq!(Pairs::new(&all), Pairs { wins: 1, losses: 1, ties: 3, flips: 2, failures: 1 });
    }
}
