//! What was said.

use crate::content::write_atomically;
use crate::outcome::Failure;
use anyhow::Result;
use espalier_model::Message;
use serde_json::Value;
use std::path::Path;

/// A question and what each model answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    question: String,
    answers: Vec<String>,
}

/// A conversation with one model or with several that hear the same questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// What comes before it.
    pub system: Option<String>,
    /// What was said.
    pub turns: Vec<Turn>,
}

impl Conversation {
    /// Adds a turn: an answer for each model.
    pub fn push(&mut self, question: String, answers: Vec<String>) {
        self.turns.push(Turn { question, answers });
    }

    /// The question that was asked last.
    pub fn last_question(&self) -> Result<String> {
        let last = self.turns.last().map(|turn| turn.question.clone());
        last.ok_or_else(|| Failure::usage("nothing was asked yet").into())
    }

    /// The conversation as one model knows it, and a question that goes on with it.
    pub fn messages(&self, speaker: usize, question: Option<&str>) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let turns = self
            .turns
            .iter()
            .flat_map(|turn| [Message::new("user", &turn.question), Message::new("assistant", &turn.answers[speaker])]);
        system.chain(turns).chain(question.map(|question| Message::new("user", question))).collect()
    }

    /// Writes `{"messages": [...]}` of the first model: the form of the rows that `pipeline train` reads.
    pub fn save(&self, path: &Path) -> Result<()> {
        let messages: Vec<Value> = self
            .messages(0, None)
            .into_iter()
            .map(|message| serde_json::json!({"role": message.role, "content": message.content}))
            .collect();
        write_atomically(path, format!("{}\n", serde_json::json!({"messages": messages})).as_bytes())
    }

    /// Reads what [`Conversation::save`] wrote; each model takes the answers for its own.
    pub fn load(path: &Path, speakers: usize) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        let other = || {
            Failure::usage(format!("{} holds no conversation", path.display()))
                .hint("the form is {\"messages\": [...]}: a system turn or none, then user and assistant in turn, as /save writes it")
        };
        let value: Value = serde_json::from_str(&text).map_err(|_| other())?;
        let turn = |value: &Value| Some((value["role"].as_str()?.to_owned(), value["content"].as_str()?.to_owned()));
        let messages: Option<Vec<(String, String)>> =
            value["messages"].as_array().and_then(|messages| messages.iter().map(turn).collect());
        let messages = messages.ok_or_else(other)?;
        let (system, turns) = match messages.split_first() {
            Some(((role, content), rest)) if role == "system" => (Some(content.clone()), rest),
            _ => (None, messages.as_slice()),
        };
        let mut conversation = Self { system, turns: Vec::new() };
        for pair in turns.chunks(2) {
            match pair {
                [(user, question), (assistant, answer)] if user == "user" && assistant == "assistant" => {
                    conversation.push(question.clone(), vec![answer.clone(); speakers]);
                }
                _ => return Err(other().into()),
            }
        }
        Ok(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_for_every_model() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("talk.jsonl");
        let mut one = Conversation { system: Some("Be brief.".into()), turns: Vec::new() };
        one.push("Hello?".into(), vec!["Hi \"you\"".into()]);
        one.save(&path)?;
        let two = Conversation::load(&path, 2)?;
        assert_eq!(two.turns[0].answers.len(), 2);
        assert_eq!(two.messages(1, Some("And?")).len(), 4);
        for bad in ["", "{}", r#"{"messages": [{"role": "user", "content": "a"}]}"#, r#"{"messages": [1]}"#] {
            std::fs::write(&path, bad)?;
            assert!(Conversation::load(&path, 1).is_err(), "{bad}");
        }
        Ok(())
    }
}
