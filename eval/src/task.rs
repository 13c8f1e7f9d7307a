//! Tasks: what is asked and what would be right.

use espalier_inference::Message;
use espalier_taxonomy::{Leaf, Seed, TestItem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::EvalError;
use crate::scoring::Checker;

/// A list of items that are asked and scored the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Names the task in results and file names: letters, digits, `_`, `-`, `.`.
    pub name: String,
    /// The questions.
    pub items: Vec<Item>,
    /// How items without choices are answered and checked.
    pub generation: Generation,
    /// How many solved examples stand before each question.
    pub few_shot: usize,
}

/// How answers are generated (always greedy) and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The longest answer in tokens.
    pub max_tokens: usize,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// When an answer is right.
    pub checker: Checker,
}

impl Default for Generation {
    fn default() -> Self {
        Self { max_tokens: 256, stop: Vec::new(), checker: Checker::default() }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Names the item within its task.
    pub id: String,
    /// What the model reads.
    pub prompt: ItemPrompt,
    /// The choices of which one is right; empty when the answer is to be generated.
    pub choices: Vec<String>,
    /// Index of the right choice; 0 for items without choices.
    pub gold: usize,
    /// The right answer.
    pub answer: String,
    /// The question as it stood in its source; its hash pairs the items of two evaluations.
    pub doc: Value,
    /// The held-out item that it was made from.
    pub test: Option<TestItem>,
}

/// What the model reads before it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemPrompt {
    /// A conversation that ends with the user's turn; a choice is the assistant's whole turn.
    Chat(Vec<Message>),
    /// Plain text; a choice continues it after one space.
    Text(String),
}

impl ItemPrompt {
    /// What stands between the prompt and a choice, as in lm-eval.
    pub fn delimiter(&self) -> &'static str {
        match self {
            Self::Chat(_) => "",
            Self::Text(_) => " ",
        }
    }

    /// One text for hashes and sample files: the plain prompt, or the turns as JSON.
    pub fn as_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            // A list of two strings each always has a JSON form.
            Self::Chat(messages) => serde_json::to_string(messages).unwrap_or_default(),
        }
    }
}

/// Whether questions are put as conversation (instruction-tuned models) or as plain text (base models).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompting {
    /// Through the chat template; examples are earlier turns.
    #[default]
    Chat,
    /// `Question: ...\nAnswer:`; examples stand above, parted by an empty line.
    Text,
}

impl Task {
    /// The held-out test of a leaf, with its first `few_shot` seeds as solved examples.
    ///
    /// Items with choices become multiple choice, the others are answered freely and checked by `generation.checker`. An item
    /// whose right answer is not among its choices is an error, as is a leaf without a test.
    pub fn from_leaf(
        leaf: &Leaf,
        few_shot: usize,
        prompting: Prompting,
        generation: Generation,
    ) -> Result<Self, EvalError> {
        let name = task_name(&leaf.id);
        let refuse = |problem: String| EvalError::Task { task: name.clone(), problem };
        if leaf.test.is_empty() {
            return Err(refuse(format!(
                "{} has no held-out test; add `test: test.jsonl` with questions and answers",
                leaf.file.display()
            )));
        }
        if leaf.seeds.len() < few_shot {
            return Err(refuse(format!(
                "{few_shot} examples were asked for, but the leaf has {} seeds; ask for fewer",
                leaf.seeds.len()
            )));
        }
        let examples: Vec<(String, &str)> = leaf.seeds[..few_shot].iter().flat_map(shown).collect();
        let mut items = Vec::with_capacity(leaf.test.len());
        for (index, test) in leaf.test.iter().enumerate() {
            let gold = if test.choices.is_empty() {
                0
            } else {
                test.choices.iter().position(|choice| *choice == test.answer).ok_or_else(|| {
                    refuse(format!(
                        "test item {}: the answer {:?} is not among the choices; write it as one of them",
                        index + 1,
                        test.answer
                    ))
                })?
            };
            items.push(Item {
                id: format!("{}#{}", leaf.id, index + 1),
                prompt: prompting.prompt(&examples, &with_context(test.context.as_deref(), &test.question)),
                choices: test.choices.clone(),
                gold,
                answer: test.answer.clone(),
                doc: serde_json::to_value(test).unwrap_or_else(|_| json!({"question": test.question})),
                test: Some(test.clone()),
            });
        }
        Ok(Self { name, items, generation, few_shot })
    }

    /// Only the first `count` items.
    #[must_use]
    pub fn limited(mut self, count: usize) -> Self {
        self.items.truncate(count);
        self
    }
}

impl Prompting {
    /// The prompt of a question with solved examples before it.
    pub fn prompt(self, examples: &[(String, &str)], question: &str) -> ItemPrompt {
        match self {
            Self::Chat => {
                let mut messages = Vec::with_capacity(2 * examples.len() + 1);
                for (question, answer) in examples {
                    messages.push(Message::new("user", question.as_str()));
                    messages.push(Message::new("assistant", *answer));
                }
                messages.push(Message::new("user", question));
                ItemPrompt::Chat(messages)
            }
            Self::Text => {
                let mut text = String::new();
                for (question, answer) in examples {
                    text.push_str(&["Question: ", question, "\nAnswer: ", answer, "\n\n"].concat());
                }
                text.push_str(&["Question: ", question, "\nAnswer:"].concat());
                ItemPrompt::Text(text)
            }
        }
    }
}

/// A seed as examples, turn by turn: the text that it is about stands above its first question.
fn shown(seed: &Seed) -> impl Iterator<Item = (String, &str)> {
    seed.exchanges().enumerate().map(|(turn, (question, answer))| {
        let context = seed.context.as_deref().filter(|_| turn == 0);
        (with_context(context, question), answer)
    })
}

/// The question below the text that it is about.
fn with_context(context: Option<&str>, question: &str) -> String {
    match context {
        Some(context) => [context.trim_end(), "\n\n", question].concat(),
        None => question.to_owned(),
    }
}

/// The id of a leaf as a name for files.
fn task_name(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::Exchange;

    use super::*;

    fn leaf() -> Leaf {
        let test = |question: &str, answer: &str, choices: &[&str]| TestItem {
            question: question.into(),
            answer: answer.into(),
            choices: choices.iter().map(ToString::to_string).collect(),
            ..TestItem::default()
        };
        Leaf {
            id: "skills/dates/add days".into(),
            seeds: vec![Seed {
                question: "Q0".into(),
                answer: "A0".into(),
                context: Some("C0\n".into()),
                line: 1,
                ..Seed::default()
            }],
            test: vec![test("Q1", "B", &["A", "B"]), test("Q2", "two", &[])],
            ..Leaf::default()
        }
    }

    #[test]
    fn a_leaf_becomes_items_with_examples_before_them() {
        let task = Task::from_leaf(&leaf(), 1, Prompting::Chat, Generation::default()).unwrap();
        assert_eq!(task.name, "skills_dates_add_days");
        assert_eq!((task.items[0].gold, task.items[0].choices.len(), task.items[1].choices.len()), (1, 2, 0));
        let ItemPrompt::Chat(messages) = &task.items[1].prompt else { panic!("chat") };
        let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(contents, ["C0\n\nQ0", "A0", "Q2"]);
        let task = Task::from_leaf(&leaf(), 1, Prompting::Text, Generation::default()).unwrap();
        assert_eq!(
            task.items[0].prompt,
            ItemPrompt::Text("Question: C0\n\nQ0\nAnswer: A0\n\nQuestion: Q1\nAnswer:".into())
        );
    }

    #[test]
    fn an_example_of_several_turns_is_shown_with_them() {
        let mut leaf = leaf();
        leaf.seeds[0].history = vec![Exchange { user: "H0".into(), assistant: "R0".into() }];
        let task = Task::from_leaf(&leaf, 1, Prompting::Chat, Generation::default()).unwrap();
        let ItemPrompt::Chat(messages) = &task.items[0].prompt else { panic!("chat") };
        let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(contents, ["C0\n\nH0", "R0", "Q0", "A0", "Q1"]);
        assert_eq!(task.few_shot, 1);
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let mut wrong = leaf();
        wrong.test[0].answer = "C".into();
        let error = Task::from_leaf(&wrong, 0, Prompting::Chat, Generation::default()).unwrap_err().to_string();
        assert!(error.contains("test item 1") && error.contains("\"C\""), "{error}");
        assert!(Task::from_leaf(&leaf(), 2, Prompting::Chat, Generation::default()).is_err());
        assert!(Task::from_leaf(&Leaf::default(), 0, Prompting::Chat, Generation::default()).is_err());
    }
}
