//! What a judge is told.

use std::path::Path;

use espalier_inference::Message;
use serde::{Deserialize, Serialize};

use crate::error::EvalError;

/// One prompt of a judge, in `FastChat`'s form. Names in braces (`{question}`, `{answer_a_1}`) are filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePrompt {
    /// Names it in judgments.
    pub name: String,
    /// `single` or `pairwise`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The system's turn; empty for none.
    #[serde(default)]
    pub system_prompt: String,
    /// The user's turn.
    pub prompt_template: String,
}

impl JudgePrompt {
    /// The text of the user's turn. What is filled in is not searched for further names.
    pub fn fill(&self, values: &[(&str, &str)]) -> String {
        let mut text = String::new();
        let mut rest = self.prompt_template.as_str();
        while let Some(open) = rest.find('{') {
            text.push_str(&rest[..open]);
            rest = &rest[open..];
            let found = values
                .iter()
                .find(|(name, _)| rest[1..].strip_prefix(name).is_some_and(|after| after.starts_with('}')));
            if let Some((name, value)) = found {
                text.push_str(value);
                rest = &rest[name.len() + 2..];
            } else {
                text.push('{');
                rest = &rest[1..];
            }
        }
        text.push_str(rest);
        text
    }

    /// The conversation that a filled text makes.
    pub fn messages(&self, filled: &str) -> Vec<Message> {
        let system = (!self.system_prompt.is_empty()).then(|| Message::new("system", self.system_prompt.as_str()));
        system.into_iter().chain([Message::new("user", filled)]).collect()
    }

    fn names(&self, placeholder: &str) -> bool {
        self.prompt_template.contains(&["{", placeholder, "}"].concat())
    }
}

/// The eight prompts of a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePrompts {
    prompts: Vec<JudgePrompt>,
}

const SINGLE: &str = "Rate the answer of an assistant to a user. Ask yourself whether it does what the user wants, whether what it \
says is true, and whether it is as clear and as complete as it should be. Length is no merit.\n\
Give your reasons in a few sentences first. Then write the rating, a whole number from 1 (useless) to 10 (could not be better), on \
a line of its own in this form: Rating: [[5]]";

const PAIR: &str = "Compare the answers of two assistants, A and B, to the same user. Which does better what the user wants: which \
is true, clear and as complete as it should be? The order in which they stand says nothing, and length is no merit.\n\
Give your reasons in a few sentences first. Then end with your verdict on a line of its own: [[A]] if A is better, [[B]] if B is \
better, [[C]] if neither is.";

const WITH_REFERENCE: &str =
    "Judge by the right answer that is shown: look for what differs from it before you decide.";
const SECOND_TURN: &str = "Judge the answers to the second question alone; the first turn shows what they follow on.";

impl JudgePrompts {
    /// Our own.
    pub fn shipped() -> Self {
        let prompts = [false, true].into_iter().flat_map(|pair| {
            [false, true]
                .into_iter()
                .flat_map(move |second| [false, true].map(|reference| shipped_prompt(pair, second, reference)))
        });
        Self { prompts: prompts.collect() }
    }

    /// Those of a file in `FastChat`'s form (its `judge_prompts.jsonl`), one a line. What a prompt is for is seen from the names
    /// in it: `{question_2}` has it judge a second turn, `{ref_answer_1}` by a reference.
    ///
    /// # Errors
    /// When the file cannot be read, a line has another form, or a prompt is missing.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(EvalError::file(path, "read the judge's prompts"))?;
        let mut prompts: Vec<JudgePrompt> = Vec::new();
        for (line, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
            let prompt = serde_json::from_str(row).map_err(|error| EvalError::Line {
                path: path.to_owned(),
                line: line + 1,
                problem: format!("{error}; expected {{\"name\", \"type\", \"system_prompt\", \"prompt_template\"}}"),
            })?;
            prompts.push(prompt);
        }
        let read = Self { prompts };
        for (pair, second, reference) in SLOTS {
            if read.find(pair, second, reference).is_none() {
                return Err(EvalError::Line {
                    path: path.to_owned(),
                    line: text.lines().count().max(1),
                    problem: format!(
                        "there is no prompt of type {:?} for a {} turn {} reference",
                        kind(pair),
                        if second { "second" } else { "first" },
                        if reference { "with a" } else { "without a" }
                    ),
                });
            }
        }
        Ok(read)
    }

    fn find(&self, pair: bool, second: bool, reference: bool) -> Option<&JudgePrompt> {
        self.prompts.iter().find(|prompt| {
            prompt.kind == kind(pair)
                && prompt.names("question_2") == second
                && prompt.names("ref_answer_1") == reference
        })
    }

    /// The prompt for a turn. Every way of making these has all eight.
    pub(super) fn get(&self, pair: bool, second: bool, reference: bool) -> JudgePrompt {
        self.find(pair, second, reference).cloned().unwrap_or_else(|| shipped_prompt(pair, second, reference))
    }
}

/// Pairwise, second turn, with a reference.
const SLOTS: [(bool, bool, bool); 8] = [
    (false, false, false),
    (false, false, true),
    (false, true, false),
    (false, true, true),
    (true, false, false),
    (true, false, true),
    (true, true, false),
    (true, true, true),
];

fn kind(pair: bool) -> &'static str {
    if pair { "pairwise" } else { "single" }
}

fn shipped_prompt(pair: bool, second: bool, reference: bool) -> JudgePrompt {
    let assistants: &[&str] = if pair { &["a", "b"] } else { &[""] };
    let mut template = String::from(if pair { PAIR } else { SINGLE });
    for (said, words) in [(reference, WITH_REFERENCE), (second, SECOND_TURN)] {
        if said {
            template.push('\n');
            template.push_str(words);
        }
    }
    let turns: &[&str] = if second { &["_1", "_2"] } else { &[""] };
    if reference {
        for (turn, suffix) in turns.iter().enumerate() {
            let number = turn + 1;
            template.push_str(&format!("\n\n<question>\n{{question{suffix}}}\n</question>\n<right-answer>\n{{ref_answer_{number}}}\n</right-answer>"));
        }
    }
    for assistant in assistants {
        let name = if assistant.is_empty() { String::new() } else { format!(" of {}", assistant.to_uppercase()) };
        for suffix in turns {
            if !reference && (second || assistant != &"b") {
                template.push_str(&format!("\n\n<question>\n{{question{suffix}}}\n</question>"));
            }
            let of = if assistant.is_empty() { String::new() } else { format!("_{assistant}") };
            template.push_str(&format!("\n\n<answer{name}>\n{{answer{of}{suffix}}}\n</answer{name}>"));
        }
    }
    JudgePrompt {
        name: [
            "espalier-",
            kind(pair),
            if reference { "-reference" } else { "" },
            if second { "-second-turn" } else { "" },
        ]
        .concat(),
        kind: kind(pair).to_owned(),
        system_prompt: "You are a fair and exact judge.".to_owned(),
        prompt_template: template,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_has_a_prompt_of_its_own() {
        let prompts = JudgePrompts::shipped();
        for (pair, second, reference) in SLOTS {
            let prompt = prompts.find(pair, second, reference).unwrap();
            let names: &[&str] = match (pair, second) {
                (false, false) => &["question", "answer"],
                (false, true) => &["question_1", "question_2", "answer_1", "answer_2"],
                (true, false) => &["question", "answer_a", "answer_b"],
                (true, true) => &["question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"],
            };
            assert!(names.iter().all(|name| prompt.names(name)), "{}", prompt.prompt_template);
            assert_eq!(prompt.names("ref_answer_2"), second && reference);
        }
    }

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        let prompt = JudgePrompt { prompt_template: "{a} {b} {c} {".into(), ..shipped_prompt(false, false, false) };
        assert_eq!(prompt.fill(&[("a", "{b}"), ("b", "2")]), "{b} 2 {c} {");
    }

    #[test]
    fn prompts_of_a_file_must_be_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        let lines: Vec<String> =
            JudgePrompts::shipped().prompts.iter().map(|prompt| serde_json::to_string(prompt).unwrap()).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(JudgePrompts::read(&path).unwrap(), JudgePrompts::shipped());
        std::fs::write(&path, lines[1..].join("\n")).unwrap();
        let error = JudgePrompts::read(&path).unwrap_err().to_string();
        assert!(error.contains("no prompt of type \"single\" for a first turn without a reference"), "{error}");
    }
}
