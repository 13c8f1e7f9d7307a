//! A conversation written as one text, for whatever has room for one question and one answer.
//!
//! ```text
//! User: Where does the frog live?
//! Assistant: In the pond.
//! User: What colour is it?
//! ```
//!
//! Such a script is the question of a seed of several turns wherever a prompt shows the seed, and what a teacher writes in its
//! manner is read back into turns.

use std::borrow::Cow;

use crate::leaf::{Exchange, Leaf, Seed};

pub(crate) const USER: &str = "User:";
pub(crate) const ASSISTANT: &str = "Assistant:";

/// Whether a line of a text would be taken for the beginning of a turn.
pub(crate) fn begins_turn(text: &str) -> bool {
    text.lines().any(|line| [USER, ASSISTANT].iter().any(|name| line.starts_with(name)))
}

impl Seed {
    /// The question as it is shown: with what was said before it, where it has several turns.
    pub fn script(&self) -> Cow<'_, str> {
        match self.said_before() {
            None => Cow::Borrowed(&self.question),
            Some(before) => Cow::Owned(format!("{before}\n{USER} {}", self.question.trim())),
        }
    }

    /// What was said before the question, a line or more a turn; `None` in a seed of one question.
    pub fn said_before(&self) -> Option<String> {
        let said = |Exchange { user, assistant }: &Exchange| {
            format!("{USER} {}\n{ASSISTANT} {}", user.trim(), assistant.trim())
        };
        let turns: Vec<String> = self.history.iter().map(said).collect();
        (!turns.is_empty()).then(|| turns.join("\n"))
    }

    /// Everything that the user says, the question last.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.history.iter().map(|exchange| exchange.user.as_str()).chain([self.question.as_str()])
    }

    /// Everything that the assistant says, the answer last.
    pub fn answered(&self) -> impl Iterator<Item = &str> {
        self.history.iter().map(|exchange| exchange.assistant.as_str()).chain([self.answer.as_str()])
    }

    /// Questions with their answers, in the order in which they were said.
    pub fn exchanges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.asked().zip(self.answered())
    }
}

impl Leaf {
    /// Whether a seed has several turns, so that the leaf's rows may have them too.
    pub fn has_conversations(&self) -> bool {
        self.seeds.iter().any(|seed| !seed.history.is_empty())
    }
}

/// What a script says: what was said before the last question, and that question. A text without a line that begins with
/// `User:` is a question by itself; what stands before the first such line goes with the first turn.
///
/// # Errors
/// Why it is no script: turns that do not alternate, that say nothing, or of which the last is not the user's.
pub fn read_script(text: &str) -> Result<(Vec<Exchange>, String), &'static str> {
    let mut before = String::new();
    let mut turns: Vec<(&str, String)> = Vec::new();
    for line in text.trim().lines() {
        let start = [USER, ASSISTANT].into_iter().find_map(|name| Some((name, line.strip_prefix(name)?)));
        match (start, turns.last_mut()) {
            (Some((ASSISTANT, _)) | None, None) => push_line(&mut before, line),
            (Some((name, rest)), _) => turns.push((name, rest.to_owned())),
            (None, Some((_, said))) => push_line(said, line),
        }
    }
    if turns.is_empty() {
        return Ok((Vec::new(), before));
    }
    let mut said = Vec::new();
    for (place, (name, text)) in turns.into_iter().enumerate() {
        if (name == USER) != (place % 2 == 0) {
            return Err("its turns do not alternate");
        }
        if text.trim().is_empty() {
            return Err("a turn of it says nothing");
        }
        said.push(text.trim().to_owned());
    }
    if said.len() % 2 == 0 {
        return Err("it does not end with a question of the user");
    }
    if let Some(first) = said.first_mut().filter(|_| !before.trim().is_empty()) {
        *first = format!("{}\n\n{first}", before.trim());
    }
    let question = said.pop().unwrap_or_default();
    let history = said.chunks_exact(2).map(|pair| Exchange { user: pair[0].clone(), assistant: pair[1].clone() });
    Ok((history.collect(), question))
}

fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(history: &[(&str, &str)], question: &str) -> Seed {
        let exchange = |(user, assistant): &(&str, &str)| Exchange {
            user: (*user).to_owned(),
            assistant: (*assistant).to_owned(),
        };
        Seed {
            question: question.into(),
            answer: "Two miles.".into(),
            history: history.iter().map(exchange).collect(),
            ..Seed::default()
        }
    }

    #[test]
    fn a_script_is_read_back_as_it_was_said() {
        let single = seed(&[], " How far is it?");
        assert_eq!(single.script(), " How far is it?");
        let several = seed(&[("Hello.", "Good day.\nAnd welcome."), ("To the mill?", "Yes.")], "How far is it?");
        let script = several.script();
        assert_eq!(
            script,
            "User: Hello.\nAssistant: Good day.\nAnd welcome.\nUser: To the mill?\nAssistant: Yes.\nUser: How far is it?"
        );
        assert_eq!(read_script(&script), Ok((several.history.clone(), several.question.clone())));
        assert_eq!(several.exchanges().last(), Some(("How far is it?", "Two miles.")));
        assert_eq!(several.exchanges().count(), 3);
    }

    #[test]
    fn a_plain_question_stays_and_a_text_before_goes_with_the_first_turn() {
        for plain in ["How far is it?", "Assistant: an odd word", "Two\n\nparagraphs"] {
            assert_eq!(read_script(plain), Ok((vec![], plain.to_owned())));
        }
        assert_eq!(read_script("User: How far?"), Ok((vec![], "How far?".to_owned())));
        let with_text = "The mill stands\nby the river.\n\nUser: Where?\nAssistant: There.\nUser: And why?";
        let (history, question) = read_script(with_text).unwrap();
        assert_eq!(history[0].user, "The mill stands\nby the river.\n\nWhere?");
        assert_eq!((history.len(), question.as_str()), (1, "And why?"));
    }

    #[test]
    fn what_is_no_conversation_says_why() {
        for (text, why) in [
            ("User: a\nUser: b", "its turns do not alternate"),
            ("User: a\nAssistant: b", "it does not end with a question of the user"),
            ("User: a\nAssistant:  \nUser: c", "a turn of it says nothing"),
        ] {
            assert_eq!(read_script(text), Err(why), "{text}");
        }
    }
}
