//! How a judge is told to answer, and how its rating is found in what it wrote.

use std::sync::Arc;

use espalier_model::Message;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::config::{JudgeConfig, Reading};
use crate::constraint::Constraint;

/// Longest reason in JSON, in characters: without it a small model writes until its tokens end, and the rating is lost.
const LONGEST_REASON: usize = 240;

/// The words of a scale as the judge is shown them.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// What the judge writes, worst first.
    pub(super) labels: Vec<String>,
    /// The ratings that the labels stand for, where they are letters.
    meanings: Option<Vec<String>>,
    pattern: Regex,
}

impl Form {
    /// The form of one reading. For `expected` no two labels may begin with the same letter, as then the first token cannot
    /// tell them apart: such scales are shown as letters with their meanings.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub(super) fn new(config: &JudgeConfig, reading: Reading) -> Result<Self, String> {
        let ratings: Vec<String> = config.scale.iter().map(|rating| rating.trim().to_owned()).collect();
        let first = |rating: &String| rating.chars().next().map(|letter| letter.to_lowercase().to_string());
        let mut firsts: Vec<_> = ratings.iter().map(first).collect();
        firsts.sort_unstable();
        let shared = firsts.windows(2).any(|pair| pair[0] == pair[1]);
        let (labels, meanings) = if reading == Reading::Expected && shared {
            (('A'..='Z').take(ratings.len()).map(String::from).collect(), Some(ratings))
        } else {
            (ratings, None)
        };
        let pattern = match &config.pattern {
            Some(pattern) => Regex::new(pattern).map_err(|error| error.to_string())?,
            None => rating_line(&labels).map_err(|error| error.to_string())?,
        };
        Ok(Self { labels, meanings, pattern })
    }

    /// The conversation with how to answer behind its last turn.
    pub(super) fn instructed(&self, conversation: &[Message], reading: Reading) -> Vec<Message> {
        let mut messages = conversation.to_vec();
        let wanted = self.instruction(reading);
        match messages.last_mut() {
            Some(last) if last.role == "user" => last.content = format!("{}\n\n{wanted}", last.content.trim_end()),
            _ => messages.push(Message::new("user", wanted)),
        }
        messages
    }

    fn instruction(&self, reading: Reading) -> String {
        let list = match self.labels.split_last() {
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        };
        match (reading, &self.meanings) {
            (Reading::Expected, Some(meanings)) => {
                let legend: Vec<String> =
                    self.labels.iter().zip(meanings).map(|(label, meaning)| format!("{label}. {meaning}")).collect();
                format!("{}\n\nAnswer with one letter: {list}.", legend.join("\n"))
            }
            // The better of two first: small judges tell good from bad better so than the other way round.
            (Reading::Expected, None) => match self.labels.as_slice() {
                [worse, better] => format!("Answer {better} or {worse}."),
                _ => format!("Answer {list}."),
            },
            (Reading::Json, _) => format!(
                "Answer with a JSON object: \"reason\" is your reason in one sentence, \"score\" is one of {list}."
            ),
            (Reading::Text, _) => format!(
                "Give your reason in one sentence. Then end with a line of this form, where X is one of {list}:\nScore: X"
            ),
        }
    }

    /// What the answer is held to while it is written.
    pub(super) fn constraint(&self, reading: Reading) -> Option<Arc<Constraint>> {
        match reading {
            Reading::Expected => Some(Constraint::Choice(self.labels.clone())),
            Reading::Json => Some(Constraint::JsonSchema(json!({
                "type": "object",
                "properties": {
                    "reason": {"type": "string", "maxLength": LONGEST_REASON},
                    "score": {"enum": self.labels},
                },
                "required": ["reason", "score"],
                "additionalProperties": false,
            }))),
            Reading::Text => None,
        }
        .map(Arc::new)
    }

    /// The number of the rating that an answer gives.
    pub(super) fn rating(&self, answer: &str, reading: Reading) -> Option<usize> {
        match reading {
            Reading::Expected => self.label(answer),
            Reading::Json => {
                let value: Value = serde_json::from_str(answer.trim()).ok()?;
                match value.get("score")? {
                    Value::String(label) => self.label(label),
                    // Scales of numbers are often answered with bare ones.
                    other => self.label(&other.to_string()),
                }
            }
            Reading::Text => {
                let last = self.pattern.captures_iter(answer).last();
                match last.as_ref().and_then(|found| found.get(1)) {
                    Some(found) => self.label(found.as_str()),
                    None => self.label(answer.trim().trim_end_matches(['.', '!'])),
                }
            }
        }
    }

    fn label(&self, text: &str) -> Option<usize> {
        let folded = text.trim().to_lowercase();
        self.labels.iter().position(|label| label.to_lowercase() == folded)
    }
}

/// `Score: 4`, `**Rating**: Yes`, `[[4]]`, `<score>4</score>`; longer labels first, so that 10 is not read as 1.
fn rating_line(labels: &[String]) -> Result<Regex, regex::Error> {
    let mut sorted: Vec<&String> = labels.iter().collect();
    sorted.sort_by_key(|label| std::cmp::Reverse(label.len()));
    let choices: Vec<String> = sorted.iter().map(|label| regex::escape(label)).collect();
    let words = r"\b(?:score|rating|verdict|answer)\b[^\w\n]{0,8}(?:is[^\w\n]{1,3})?|\[\[";
    RegexBuilder::new(&format!(r"(?:{words})({})(?:[^\w]|$)", choices.join("|"))).case_insensitive(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(scale: &[&str], reading: Reading) -> Form {
        let config = JudgeConfig { scale: scale.iter().map(ToString::to_string).collect(), ..JudgeConfig::default() };
        Form::new(&config, reading).unwrap()
    }

    #[test]
    fn a_rating_is_read_from_what_judges_write() {
        let numbers: Vec<String> = (1..=10).map(|number| number.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let form = form(&numbers, Reading::Text);
        for (answer, expected) in [
            ("It is good.\nScore: 10", Some(9)),
            ("Score: 3\nNo, on second thought:\n**Rating**: 4.", Some(3)),
            ("I think the score is 7", Some(6)),
            ("[[8]]", Some(7)),
            ("<score>2</score>", Some(1)),
            ("5.", Some(4)),
            ("Score: 100", None),
            ("I like it, 9 of 10 people do", None),
            ("", None),
        ] {
            assert_eq!(form.rating(answer, Reading::Text), expected, "{answer}");
        }
        assert_eq!(form.rating(r#"{"reason": "x", "score": 4}"#, Reading::Json), Some(3));
        assert_eq!(form.rating(r#"{"reason": "x", "score": "4"}"#, Reading::Json), Some(3));
        assert_eq!(form.rating(r#"{"reason": "x", "sco"#, Reading::Json), None);
    }

    #[test]
    fn ratings_that_begin_alike_are_shown_as_letters() {
        let shown = |scale: &[&str], reading| {
            let form = form(scale, reading);
            form.instructed(&[Message::new("user", "Good?")], reading)[0].content.clone()
        };
        assert_eq!(shown(&["No", "Yes"], Reading::Expected), "Good?\n\nAnswer Yes or No.");
        assert_eq!(
            shown(&["very bad", "so so", "very good"], Reading::Expected),
            "Good?\n\nA. very bad\nB. so so\nC. very good\n\nAnswer with one letter: A, B or C."
        );
        assert!(shown(&["very bad", "very good"], Reading::Json).ends_with("one of very bad or very good."));
    }
}
