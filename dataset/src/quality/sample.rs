//! What the checks of quality see of a row.

use std::borrow::Cow;

use crate::formats::{Content, Example};
use crate::row::Row;

/// A row, whatever it came from: its name and what is said in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Id of the row.
    pub id: &'a str,
    /// Leaf that it belongs to; empty where it has none.
    pub leaf: &'a str,
    /// Role and text of each turn. A text that is no conversation is one turn of the assistant: it is learned.
    pub turns: Vec<(&'a str, &'a str)>,
}

impl<'a> Sample<'a> {
    /// A question with its answer.
    pub fn pair(id: &'a str, question: &'a str, answer: &'a str) -> Self {
        Self { id, leaf: "", turns: vec![("user", question), ("assistant", answer)] }
    }

    /// What is asked: the turns of the user.
    pub fn question(&self) -> Cow<'a, str> {
        self.said_by("user")
    }

    /// What is answered: the turns of the assistant.
    pub fn answer(&self) -> Cow<'a, str> {
        self.said_by("assistant")
    }

    /// What is asked behind the last blank line: the question itself, where it follows the text that it is about. `None` of a
    /// question in one piece.
    pub fn end_of_question(&self) -> Option<String> {
        self.question().trim_end().rsplit_once("\n\n").map(|(_, end)| end.to_owned())
    }

    fn said_by(&self, wanted: &str) -> Cow<'a, str> {
        let mut said = self.turns.iter().filter(|(role, _)| *role == wanted).map(|(_, text)| *text);
        let Some(first) = said.next() else { return Cow::Borrowed("") };
        said.fold(Cow::Borrowed(first), |before, text| Cow::Owned(format!("{before}\n\n{text}")))
    }
}

impl<'a> From<&'a Row> for Sample<'a> {
    fn from(row: &'a Row) -> Self {
        let turns = row.turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect();
        Self { id: &row.id, leaf: &row.leaf, turns }
    }
}

impl<'a> From<&'a Example> for Sample<'a> {
    fn from(example: &'a Example) -> Self {
        let turns = match &example.content {
            Content::Conversation(turns) => {
                turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect()
            }
            Content::Completion { prompt, completion } => {
                vec![("user", prompt.as_str()), ("assistant", completion.as_str())]
            }
            Content::Text(text) | Content::Document(text) => vec![("assistant", text.as_str())],
        };
        Self { id: &example.id, leaf: example.leaf.as_deref().unwrap_or_default(), turns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_a_speaker_are_joined() {
        let turns = vec![("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")];
        let sample = Sample { turns, ..Sample::default() };
        assert_eq!((sample.question().as_ref(), sample.answer().as_ref()), ("a\n\nc", "b"));
        assert_eq!(sample.end_of_question().as_deref(), Some("c"));
        assert_eq!(Sample::pair("", "a", "b\n\nc").end_of_question(), None);
        let example = Example::new(Content::Text("learned".into()), 1);
        assert_eq!(
            (Sample::from(&example).answer().as_ref(), Sample::from(&example).question().as_ref()),
            ("learned", "")
        );
    }
}
