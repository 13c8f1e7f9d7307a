//! Answers without an end.

use super::excerpt;
use super::prose::is_fence;
use crate::quality::words::units;

/// Signs that end a sentence, in the scripts that have some.
const ENDS: [char; 12] = ['.', '!', '?', '…', '。', '！', '？', '؟', '।', '۔', '։', '።'];
/// A last line with fewer words is a heading, an item, a signature.
const WORDS: usize = 6;

/// Why an answer seems cut off. What the engine said is certain; without it, a block of code that is never closed, or a last
/// sentence without its end in a text that ends its other sentences.
pub(super) fn truncated(answer: &str, out_of_tokens: bool) -> Option<String> {
    if out_of_tokens {
        return Some("the teacher had no tokens left".to_owned());
    }
    let text = answer.trim_end();
    if text.lines().filter(|line| is_fence(line)).count() % 2 == 1 {
        return Some("a block of code is not closed".to_owned());
    }
    let last = text.lines().next_back().unwrap_or_default();
    let cut =
        text.ends_with(|letter: char| letter.is_alphanumeric() || [',', '-', '–', '(', '„', '“'].contains(&letter));
    let listed = last.trim_start().starts_with(['-', '*', '•', '|', '#', '>', '+'])
        || last
            .trim_start()
            .split_once(['.', ')', ':'])
            .is_some_and(|(number, _)| number.chars().all(|c| c.is_ascii_digit()));
    if !cut || listed || units(last).len() < WORDS {
        return None;
    }
    // Sentences that end show how the text is written. A dot inside a number or a name ends nothing.
    let ended = text.char_indices().filter(|(place, letter)| {
        let after = text[place + letter.len_utf8()..].chars().next();
        ENDS.contains(letter) && (after.is_none_or(char::is_whitespace) || !letter.is_ascii())
    });
    (ended.count() >= 2).then(|| format!("it ends in the middle: `…{}`", ending(last)))
}

fn ending(line: &str) -> String {
    let letters: Vec<char> = line.chars().collect();
    excerpt(&letters[letters.len().saturating_sub(40)..].iter().collect::<String>())
}
