//! Lengths.

use serde::{Deserialize, Serialize};

use crate::quality::words::units;

/// A longer word is no word: data in some encoding, or a loop of letters.
const LONGEST_WORD: usize = 1000;

/// How long questions and answers may be. A word is what blanks or punctuation part; of Chinese, Japanese and Thai each letter
/// counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Words of a question at least.
    pub question_words: usize,
    /// Words of an answer at least.
    pub answer_words: usize,
    /// Words of a question at most, with the text that it is about.
    pub most_question_words: usize,
    /// Words of an answer at most.
    pub most_answer_words: usize,
    /// Characters of question and answer together at most.
    pub most_characters: usize,
}

impl Default for Bounds {
    /// A question has a word at least, and so has an answer ("Yes"); at most both are as long as what a training step of 4,096
    /// tokens can hold, by some 3/4 word a token.
    fn default() -> Self {
        Self {
            question_words: 1,
            answer_words: 1,
            most_question_words: 3000,
            most_answer_words: 3000,
            most_characters: 32_000,
        }
    }
}

impl Bounds {
    pub(super) fn broken(&self, question: &str, answer: &str, asked: bool) -> Option<String> {
        let characters = question.chars().count() + answer.chars().count();
        if characters > self.most_characters {
            return Some(format!("{characters} characters, more than {}", self.most_characters));
        }
        if answer.trim().is_empty() {
            return Some("the answer is empty".to_owned());
        }
        let bounds = [
            ("question", question, self.question_words, self.most_question_words),
            ("answer", answer, self.answer_words, self.most_answer_words),
        ];
        for (name, text, least, most) in bounds.into_iter().skip(usize::from(!asked)) {
            let units = units(text);
            // An answer may be a sign alone: a formula, an emoji.
            let count = units.len().max(usize::from(name == "answer"));
            if count < least {
                return Some(format!("{name} of {count} words, fewer than {least}"));
            }
            if count > most {
                return Some(format!("{name} of {count} words, more than {most}"));
            }
            if let Some(word) = units.iter().find(|word| word.chars().count() > LONGEST_WORD) {
                return Some(format!("a word of {} characters in the {name}", word.chars().count()));
            }
        }
        None
    }
}
