//! Blocks that check answers by program.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use espalier_taxonomy::Leaf;
use serde_json::Value;

use crate::flow::sample::{Passed, Refused, Rejected, Sample};
use crate::reward::{Preference, Reward, Truth, select};
use crate::verify::Verifier;
use crate::{CheckOutcome, SdgError};

/// Keeps rows whose answer is right, and writes it as it should be written.
#[derive(Clone, Debug)]
pub(crate) struct Verify {
    /// The column of the question.
    pub(crate) question: String,
    /// The column of the answer.
    pub(crate) answer: String,
    /// The check; the leaf's own where there is none.
    pub(crate) check: Option<Arc<Reward>>,
}

impl Verify {
    pub(crate) fn apply(&self, block: &str, rows: Vec<Sample>, leaf: &Leaf) -> Result<Passed, SdgError> {
        let verifier = Verifier::new(leaf)?;
        Ok(Passed::each(rows, block, |sample| {
            let outcome = self.outcome(sample, leaf, &verifier)?;
            sample.scores.push((block.to_owned(), f64::from(u8::from(outcome.passed))));
            if !outcome.passed {
                return Err(Refused { score: Some(0.0), ..Refused::new("wrong answer", outcome.reason) });
            }
            if let Some(canonical) = outcome.canonical {
                sample.columns.insert(self.answer.clone(), canonical.into());
            }
            Ok(())
        }))
    }

    fn outcome(&self, sample: &Sample, leaf: &Leaf, verifier: &Verifier) -> Result<CheckOutcome, Refused> {
        let answer = sample.text(&self.answer).ok_or_else(|| Refused::missing(&self.answer))?;
        let values: BTreeMap<String, Value> =
            sample.columns.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Some(reward) = &self.check {
            reward
                .check(Truth::Computed, &values, answer)
                .map_err(|(part, reason)| Refused::new("check fails", format!("`{part}`: {reason}")))
        } else {
            let question = sample.text(&self.question).ok_or_else(|| Refused::missing(&self.question))?;
            let outcome = verifier.check(leaf, &values, question, answer);
            outcome.map_err(|error| Refused::new("check fails", error.to_string()))
        }
    }
}

/// Of rows with the same values in some columns keeps one whose answer most of them give.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vote {
    /// The columns by which rows belong together.
    pub(crate) by: Vec<String>,
    /// The column of the answer.
    pub(crate) column: String,
    /// Least share of the rows that must agree.
    pub(crate) share: f64,
}

impl Vote {
    /// The first row with the most frequent answer stays; of equally frequent ones the first answer.
    pub(crate) fn apply(&self, block: &str, rows: Vec<Sample>) -> Passed {
        let key = |sample: &Sample| group_key(sample, &self.by);
        let said = |sample: &Sample| sample.columns.get(&self.column).map(normalized_answer);
        let mut groups: HashMap<Vec<String>, Votes> = HashMap::new();
        for (number, sample) in rows.iter().enumerate() {
            if let Some(answer) = said(sample) {
                groups.entry(key(sample)).or_default().add(answer, number);
            }
        }
        let mut passed = Passed::default();
        for (number, mut sample) in rows.into_iter().enumerate() {
            let votes = groups.get(&key(&sample)).and_then(|votes| Some((votes, votes.winner()?, said(&sample)?)));
            let Some((votes, (winner, first, count), answer)) = votes else {
                let Refused { category, detail, .. } = Refused::missing(&self.column);
                passed.rejected.push(Rejected::new(sample, block, category, detail));
                continue;
            };
            let share = count as f64 / votes.total as f64;
            let detail = format!("{count} of {} say {winner:?}", votes.total);
            let category = if share < self.share {
                "no majority"
            } else if answer != winner {
                "outvoted"
            } else if number != first {
                "same answer"
            } else {
                sample.scores.push((block.to_owned(), share));
                passed.kept.push(sample);
                continue;
            };
            passed.rejected.push(Rejected { score: Some(share), ..Rejected::new(sample, block, category, detail) });
        }
        passed
    }
}

/// Of rows with the same values in some columns keeps the best.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Select {
    /// The columns by which rows belong together.
    pub(crate) by: Vec<String>,
    /// The column of the answer.
    pub(crate) column: String,
    /// So many are kept of those that belong together.
    pub(crate) most: usize,
    pub(crate) prefer: Preference,
}

impl Select {
    /// The rows that are kept stay in their order.
    pub(crate) fn apply(&self, block: &str, rows: Vec<Sample>) -> Passed {
        let mut groups: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        for (number, sample) in rows.iter().enumerate() {
            groups.entry(group_key(sample, &self.by)).or_default().push(number);
        }
        let mut chosen = vec![false; rows.len()];
        for numbers in groups.values() {
            let answer = |&number: &usize| rows[number].text(&self.column).map_or(("", false), |text| (text, true));
            let answers: Vec<(&str, bool)> = numbers.iter().map(answer).collect();
            for place in select(&answers, self.most, self.prefer) {
                chosen[numbers[place]] = true;
            }
        }
        let mut chosen = chosen.into_iter();
        Passed::each(rows, block, |sample| match (chosen.next(), sample.text(&self.column)) {
            (Some(true), _) => Ok(()),
            (_, None) => Err(Refused::missing(&self.column)),
            (_, Some(_)) => Err(Refused::new("not chosen", format!("{} better ones are kept", self.most))),
        })
    }
}

fn group_key(sample: &Sample, by: &[String]) -> Vec<String> {
    by.iter().map(|column| sample.columns.get(column).map_or(String::new(), Value::to_string)).collect()
}

fn normalized_answer(value: &Value) -> String {
    match value {
        Value::String(text) => Verifier::normalized_answer(text).to_lowercase(),
        other => other.to_string(),
    }
}

/// Answers in the order in which they came: with the first row that gives each, and how many do.
#[derive(Default)]
struct Votes {
    answers: Vec<(String, usize, usize)>,
    total: usize,
}

impl Votes {
    fn add(&mut self, answer: String, number: usize) {
        self.total += 1;
        match self.answers.iter_mut().find(|(other, ..)| *other == answer) {
            Some((_, _, count)) => *count += 1,
            None => self.answers.push((answer, number, 1)),
        }
    }

    fn winner(&self) -> Option<(String, usize, usize)> {
        self.answers.iter().rev().max_by_key(|(_, _, count)| *count).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flow::sample::Origin;

    #[test]
    fn the_shortest_answers_stay() {
        let row = |(number, answer): (usize, &&str)| {
            let columns = json!({"question": 1, "answer": answer}).as_object().unwrap().clone();
            Sample::new("leaf", &number.to_le_bytes(), columns, Origin::default())
        };
        let rows = ["a long one", "short", "Short.", "one"].iter().enumerate().map(row).collect();
        let by = vec!["question".to_owned()];
        let select = Select { by, column: "answer".into(), most: 2, prefer: Preference::Shortest };
        let passed = select.apply("s", rows);
        assert_eq!(passed.kept.iter().map(|row| row.text("answer").unwrap()).collect::<Vec<_>>(), ["short", "one"]);
        assert!(passed.rejected.iter().all(|row| row.category == "not chosen"));
    }

    #[test]
    fn the_most_frequent_answer_stays_once() {
        let row = |(number, (question, answer)): (usize, &(i64, &str))| {
            let columns = json!({"question": question, "answer": answer}).as_object().unwrap().clone();
            Sample::new("leaf", &number.to_le_bytes(), columns, Origin::default())
        };
        let answers = [(1, "4"), (1, "5"), (2, "x"), (1, " 5. "), (2, "y"), (1, "5")];
        let rows: Vec<Sample> = answers.iter().enumerate().map(row).collect();
        let vote = Vote { by: vec!["question".into()], column: "answer".into(), share: 0.6 };
        let passed = vote.apply("v", rows);
        assert_eq!(passed.kept.iter().map(|row| row.text("answer").unwrap()).collect::<Vec<_>>(), ["5"]);
        assert_eq!(passed.kept[0].scores, [("v".to_owned(), 0.75)]);
        let reasons: Vec<&str> = passed.rejected.iter().map(|row| row.category).collect();
        assert_eq!(reasons, ["outvoted", "no majority", "same answer", "no majority", "same answer"]);
        assert_eq!(passed.rejected[0].detail, "3 of 4 say \"5\"");
    }
}
