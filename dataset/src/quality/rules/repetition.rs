//! Answers that go round in circles.
//!
//! Gopher's limits (Rae et al., 2021, table A1: 15 % of the characters in repeated runs of 5 words, 30 % of the lines) are for
//! pages of the web. In an answer of 60 words a list of five items with a common beginning passes them by far, and is right. What
//! teachers do wrong is another thing: they fall into a loop, word by word, sentence by sentence or line by line. So loops are
//! looked for, and repeated runs are long enough (12 words) that only whole sentences said again count.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::excerpt;
use super::prose::prose;
use crate::quality::words::units;

/// The longest part of a loop, in words.
const LONGEST_PART: usize = 40;
/// Words that a loop takes at least: "ha ha ha ha" is none.
const LOOP: usize = 12;
/// Share of the words in a loop that is too much.
const LOOPED: f64 = 0.3;
/// Words of a run that counts when it is repeated.
const RUN: usize = 12;
/// Share of the words in repeated runs that is too much, in a text of at least [`LEAST`] words.
const REPEATED: f64 = 0.3;
/// Fewer words are too few for shares.
const LEAST: usize = 40;
/// Share of lines that stood before, of at least [`LINES`] lines with three words and more.
const REPEATED_LINES: f64 = 0.3;
/// Fewer lines are too few.
const LINES: usize = 5;
/// The same letter this often in a row is no word of any language.
const SAME_LETTER: usize = 20;

/// How an answer repeats itself.
pub(super) fn repetition(answer: &str) -> Option<String> {
    let text = prose(answer);
    let units = units(&text);
    same_letter(&text).or_else(|| lines(&text)).or_else(|| circle(&units)).or_else(|| runs(&units))
}

fn same_letter(text: &str) -> Option<String> {
    let (mut last, mut count) = ('\0', 0);
    for letter in text.chars() {
        count = if letter == last { count + 1 } else { 1 };
        last = letter;
        if count == SAME_LETTER && letter.is_alphabetic() {
            return Some(format!("`{letter}` {SAME_LETTER} times in a row"));
        }
    }
    None
}

/// Lines said again. Rows of a table are lines of their own; a rule between them has no words.
fn lines(text: &str) -> Option<String> {
    let lines: Vec<String> =
        text.lines().map(units).filter(|words| words.len() >= 3).map(|words| words.join(" ")).collect();
    if lines.len() < LINES {
        return None;
    }
    let mut seen = HashSet::new();
    let again: Vec<&String> = lines.iter().filter(|line| !seen.insert(line.as_str())).collect();
    let first = again.first()?;
    (again.len() as f64 > REPEATED_LINES * lines.len() as f64)
        .then(|| format!("{} of {} lines again, such as `{}`", again.len(), lines.len(), excerpt(first)))
}

/// The same words in a row, again and again: a part of `period` words that is said three times or more.
fn circle(units: &[String]) -> Option<String> {
    let longest = LONGEST_PART.min(units.len() / 3);
    let mut longest_loop: Option<(usize, usize, usize)> = None;
    for period in 1..=longest {
        let mut same = 0;
        for place in period..units.len() {
            same = if units[place] == units[place - period] { same + 1 } else { 0 };
            // The part itself and what repeats it.
            let length = same + period;
            let enough = same >= 2 * period && length >= LOOP && length as f64 >= LOOPED * units.len() as f64;
            if enough && longest_loop.is_none_or(|(most, ..)| length > most) {
                longest_loop = Some((length, period, place + 1 - length));
            }
        }
    }
    let (length, period, start) = longest_loop?;
    let part = &units[start..start + period];
    // Columns of numbers repeat.
    if !part.iter().any(|word| word.chars().any(char::is_alphabetic)) {
        return None;
    }
    Some(format!("`{}` {} times in a row", excerpt(&part.join(" ")), length / period))
}

/// The share of words that stand in a run of words that was there before.
fn runs(units: &[String]) -> Option<String> {
    if units.len() < LEAST {
        return None;
    }
    let mut first: HashMap<&[String], usize> = HashMap::new();
    let mut again = vec![false; units.len()];
    for (place, run) in units.windows(RUN).enumerate() {
        let before = *first.entry(run).or_insert(place);
        // A run that overlaps itself belongs to a loop, which is looked at by itself.
        if before + RUN <= place {
            again[place..place + RUN].fill(true);
        }
    }
    let count = again.iter().filter(|again| **again).count();
    if (count as f64) <= REPEATED * units.len() as f64 {
        return None;
    }
    let mut detail = format!("{count} of {} words stand in runs of {RUN} that were said before", units.len());
    if let Some(place) = again.iter().position(|again| *again) {
        // Writing to a string cannot fail.
        let _ = write!(detail, ", such as `{}`", excerpt(&units[place..place + RUN].join(" ")));
    }
    Some(detail)
}
