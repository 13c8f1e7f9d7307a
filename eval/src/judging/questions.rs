//! Questions of two turns.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::EvalError;

/// A question in `FastChat`'s form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// 81 to 160 in MT-Bench; a hash of 128 bits in questions of a taxonomy, which is written as text.
    #[serde(with = "question_id")]
    pub question_id: u128,
    /// What it is about: `writing`, `math`, `taxonomy`.
    pub category: String,
    /// What is asked, one text a turn.
    pub turns: Vec<String>,
    /// A right answer to each turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Vec<String>>,
    /// The file of a taxonomy that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qna_file: Option<String>,
}

impl Question {
    /// The answers to judge by, for the categories where an answer is right or wrong.
    pub fn reference_for_judges(&self) -> Option<&[String]> {
        let exact = matches!(self.category.as_str(), "math" | "reasoning" | "coding" | "taxonomy");
        self.reference.as_deref().filter(|reference| exact && reference.len() >= self.turns.len())
    }

    /// What its score is counted among: its leaf, or its category.
    pub fn group(&self) -> &str {
        self.qna_file.as_deref().unwrap_or(&self.category)
    }

    /// How answers are sampled: freely where many are right, greedily elsewhere.
    pub fn temperature(&self) -> f32 {
        match self.category.as_str() {
            "writing" | "roleplay" => 0.7,
            "stem" | "humanities" => 0.1,
            _ => 0.0,
        }
    }
}

/// The 80 questions of MT-Bench, with references to those of math, reasoning and coding.
///
/// # Errors
/// Never with the questions that come with the program.
pub fn shipped_questions() -> Result<Vec<Question>, EvalError> {
    parse(include_str!("../../data/mt_bench/question.jsonl"), Path::new("mt_bench/question.jsonl"))
}

/// So many of the questions, in their order, evenly over their groups: a few questions of each say more than all of one.
pub fn spread(questions: Vec<Question>, count: usize) -> Vec<Question> {
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let rank = |question| {
        let number = taken.entry(Question::group(question)).or_default();
        *number += 1;
        *number
    };
    let ranks: Vec<usize> = questions.iter().map(rank).collect();
    let mut order: Vec<usize> = (0..questions.len()).collect();
    order.sort_by_key(|&index| (ranks[index], index));
    order.truncate(count);
    order.sort_unstable();
    let mut chosen = order.into_iter().peekable();
    let all = questions.into_iter().enumerate();
    all.filter(|(index, _)| chosen.next_if_eq(index).is_some()).map(|(_, question)| question).collect()
}

/// Questions from a file, one a line.
///
/// # Errors
/// When it cannot be read, a line has another form, a question has no turn, or two have one number.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, EvalError> {
    parse(&std::fs::read_to_string(path).map_err(EvalError::file(path, "read the questions"))?, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Question>, EvalError> {
    let mut questions: Vec<Question> = Vec::new();
    for (line, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let problem = |problem: String| EvalError::Line { path: path.to_owned(), line: line + 1, problem };
        let question: Question = serde_json::from_str(row).map_err(|error| {
            problem(format!("{error}; expected {{\"question_id\": number, \"category\": text, \"turns\": [texts]}}"))
        })?;
        if question.turns.iter().all(|turn| turn.trim().is_empty()) {
            return Err(problem(format!("question {} has no turn that asks anything", question.question_id)));
        }
        if questions.iter().any(|other| other.question_id == question.question_id) {
            return Err(problem(format!("question {} stands twice; number each once", question.question_id)));
        }
        questions.push(question);
    }
    if questions.is_empty() {
        return Err(EvalError::Line { path: path.to_owned(), line: 1, problem: "there is no question".to_owned() });
    }
    Ok(questions)
}

/// Numbers of questions as they stand in files: `FastChat` writes numbers, `InstructLab` the decimal digits of a hash as text.
pub(super) mod question_id {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(id: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(*id) {
            Ok(small) => serializer.serialize_u64(small),
            Err(_) => serializer.serialize_str(&id.to_string()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(id) => Ok(u128::from(id)),
            Form::Text(text) => text
                .parse()
                .map_err(|_| serde::de::Error::custom(format!("`question_id` is {text:?}, which is no whole number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_questions_are_those_of_mt_bench() {
        let questions = shipped_questions().unwrap();
        assert_eq!((questions.len(), questions[0].question_id, questions[79].question_id), (80, 81, 160));
        assert!(questions.iter().all(|question| question.turns.len() == 2));
        assert_eq!(questions.iter().filter(|question| question.reference_for_judges().is_some()).count(), 30);
        assert_eq!((questions[0].temperature() * 10.0).round() as i32, 7);
    }

    #[test]
    fn a_few_questions_are_of_every_group() {
        let all = shipped_questions().unwrap();
        let groups = |count: usize| -> Vec<(u128, String)> {
            spread(all.clone(), count).into_iter().map(|found| (found.question_id, found.category)).collect()
        };
        assert_eq!(
            groups(3).iter().map(|(_, group)| group.as_str()).collect::<Vec<_>>(),
            ["writing", "roleplay", "reasoning"]
        );
        let ten = groups(10);
        assert!(ten.is_sorted() && ten[0].0 == 81 && ten[1].0 == 82 && ten[2].1 == "roleplay", "{ten:?}");
        assert_eq!(groups(100).len(), 80);
    }

    #[test]
    fn questions_that_cannot_be_asked_are_refused_with_their_line() {
        let message = |text: &str| parse(text, Path::new("q.jsonl")).unwrap_err().to_string();
        let one = r#"{"question_id": 1, "category": "x", "turns": ["Why?"]}"#;
        assert!(message(&format!("{one}\n{one}")).contains("q.jsonl:2: question 1 stands twice"));
        assert!(message(r#"{"question_id": 1, "category": "x", "turns": [" "]}"#).contains("no turn"));
        assert!(message("{}").contains("q.jsonl:1:") && message("").contains("no question"));
        let large =
            r#"{"question_id": "340282366920938463463374607431768211455", "category": "taxonomy", "turns": ["Why?"]}"#;
        assert_eq!(parse(large, Path::new("q")).unwrap()[0].question_id, u128::MAX);
    }
}
