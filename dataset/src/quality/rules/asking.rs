//! Whether a question asks, and whether its answer is more than the question.

use super::excerpt;
use crate::duplicates::normalized;
use crate::quality::sample::Sample;
use crate::quality::shingles::Shingles;
use crate::quality::words::units;

/// What teachers write in the place of a question.
const PLACEHOLDERS: [&str; 12] = [
    "n/a",
    "none",
    "null",
    "todo",
    "question",
    "question here",
    "your question here",
    "insert question here",
    "placeholder",
    "example question",
    "no question",
    "same as above",
];

/// An answer this like its question only repeats it.
const SAME: f64 = 0.8;

/// Why a turn of the user asks nothing.
pub(super) fn asks_nothing(sample: &Sample<'_>, question_mark: bool) -> Option<String> {
    sample.turns.iter().filter(|(role, _)| *role == "user").find_map(|(_, turn)| turn_asks_nothing(turn, question_mark))
}

fn turn_asks_nothing(turn: &str, question_mark: bool) -> Option<String> {
    let text = turn.trim();
    if !text.contains(char::is_alphanumeric) {
        return Some(format!("neither letter nor digit in `{}`", excerpt(text)));
    }
    let name = normalized(text);
    let name = name.trim_matches(|letter: char| "[]<>{}()".contains(letter));
    let numbered =
        name.strip_prefix("question ").is_some_and(|rest| rest.chars().all(|letter| letter.is_ascii_digit()));
    if numbered || PLACEHOLDERS.contains(&name) {
        return Some(format!("`{}` stands where a question belongs", excerpt(text)));
    }
    // A colon is no end of a sentence either, but "Name the capital:" asks.
    if text.ends_with([',', '-', '–', '—', '(']) && !text.ends_with("--") {
        return Some(format!("it ends in the middle: `{}`", excerpt(tail(text))));
    }
    // Full width, Arabic, Greek (its mark is a semicolon), Armenian.
    let asks = text.contains(['?', '？', '؟', ';', '\u{37e}', '՞']);
    (question_mark && !asks).then(|| format!("no question mark in `{}`", excerpt(tail(text))))
}

/// The last line.
fn tail(text: &str) -> &str {
    text.lines().next_back().unwrap_or(text)
}

/// Why the answer says nothing that the question does not say. Answers of a few words may well stand in the question ("Is it A
/// or B?").
pub(super) fn echo(question: &str, answer: &str) -> Option<String> {
    if units(answer).len() < 4 {
        return (normalized(answer) == normalized(question)).then(|| "the answer is the question".to_owned());
    }
    let similarity = Shingles::new(question).similarity(&Shingles::new(answer));
    (similarity >= SAME).then(|| format!("the answer is {similarity:.2} like the question"))
}
