//! When a response follows an instruction.

use std::sync::LazyLock;

use regex::Regex;
use serde::de::IgnoredAny;

use super::capitals::words_in_capitals;
use super::instruction::Instruction;
use super::language::{Finding, language};
use super::sentences::count_sentences;

/// The answers that a constrained response may give.
const FIXED_ANSWERS: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];

macro_rules! pattern {
    ($name:ident, $pattern:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a constant pattern"));
    };
}

pattern!(WORD, r"[\p{L}\p{N}_]+");
pattern!(PLACEHOLDER, r"\[.*?\]");
pattern!(STAR_BULLET, r"(?m)^\s*\*[^\*].*$");
pattern!(DASH_BULLET, r"(?m)^\s*-.*$");
pattern!(HIGHLIGHT, r"\*[^\n\*]*\*");
pattern!(DOUBLE_HIGHLIGHT, r"\*\*[^\n\*]*\*\*");
pattern!(DIVIDER, r"\s?\*\*\*\s?");
pattern!(TITLE, r"<<[^\n]+>>");

impl Instruction {
    /// Whether a response that is not empty follows the instruction.
    pub fn is_followed(&self, response: &str) -> bool {
        match self {
            Self::Keywords(words) => words.iter().all(|word| word.is_match(response)),
            Self::KeywordFrequency(word, relation, bound) => relation.holds(word.find_iter(response).count(), *bound),
            Self::ForbiddenWords(words) => !words.iter().any(|word| word.is_match(response)),
            Self::LetterFrequency(letter, relation, bound) => {
                let found = response.to_lowercase().chars().filter(|character| character == letter).count();
                relation.holds(found, *bound)
            }
            // A text without a letter has no language: the published checker lets it pass.
            Self::Language(code) => match language(response) {
                Finding::NoLetters => true,
                Finding::Unclear => false,
                Finding::Code(found) => found == code,
            },
            Self::Sentences(relation, bound) => relation.holds(count_sentences(response), *bound),
            Self::Paragraphs(count) => has_paragraphs(response, *count),
            Self::Words(relation, bound) => relation.holds(WORD.find_iter(response).count(), *bound),
            Self::FirstWord { paragraphs, nth, word } => begins_with(response, *paragraphs, *nth, word),
            Self::Placeholders(bound) => PLACEHOLDER.find_iter(response).count() >= *bound,
            Self::Postscript(pattern) => pattern.is_match(&response.to_lowercase()),
            Self::Bullets(count) => {
                STAR_BULLET.find_iter(response).count() + DASH_BULLET.find_iter(response).count() == *count
            }
            Self::ConstrainedResponse => FIXED_ANSWERS.iter().any(|answer| response.contains(answer)),
            Self::Highlights(bound) => highlights(response) >= *bound,
            Self::Sections(heading, bound) => heading.find_iter(response).count() >= *bound,
            Self::Json => is_json(response),
            Self::Title => TITLE
                .find_iter(response)
                .any(|title| !title.as_str().trim_start_matches('<').trim_end_matches('>').trim().is_empty()),
            Self::TwoResponses => are_two(response),
            Self::RepeatPrompt(prompt) => response.trim().to_lowercase().starts_with(prompt.as_str()),
            Self::EndsWith(phrase) => response.trim().trim_matches('"').to_lowercase().ends_with(phrase.as_str()),
            Self::Quotation => {
                let trimmed = response.trim();
                trimmed.len() > 1 && trimmed.starts_with('"') && trimmed.ends_with('"')
            }
            Self::CapitalWords(relation, bound) => relation.holds(words_in_capitals(response), *bound),
            Self::EnglishCapital => in_capitals(response) && is_english(response),
            Self::EnglishLowercase => in_small_letters(response) && is_english(response),
            Self::NoComma => !response.contains(','),
        }
    }
}

/// At least one letter with a case, and none that is small: `str.isupper` of Python.
pub(super) fn in_capitals(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

fn in_small_letters(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

fn is_english(text: &str) -> bool {
    matches!(language(text), Finding::Code("en") | Finding::NoLetters)
}

/// Parts between `***`; the first and the last may be empty and do not count then, any other empty one spoils the form.
fn has_paragraphs(response: &str, wanted: usize) -> bool {
    let parts: Vec<&str> = DIVIDER.split(response).collect();
    let mut count = parts.len();
    for (index, part) in parts.iter().enumerate() {
        if part.trim().is_empty() {
            if index != 0 && index != parts.len() - 1 {
                return false;
            }
            count -= 1;
        }
    }
    count == wanted
}

/// Empty parts do not count, but they are counted through when the nth is looked up: so the published checker does it.
fn begins_with(response: &str, paragraphs: usize, nth: usize, word: &str) -> bool {
    let parts: Vec<&str> = response.split("\n\n").collect();
    let filled = parts.iter().filter(|part| !part.trim().is_empty()).count();
    if nth > filled {
        return false;
    }
    let Some(first) = parts.get(nth - 1).and_then(|part| part.split_whitespace().next()) else {
        return false;
    };
    let first = first.trim_start_matches('\'').trim_start_matches('"');
    let end = first.find(['.', ',', '?', '!', '\'', '"']).unwrap_or(first.len());
    filled == paragraphs && first[..end].to_lowercase() == word
}

fn highlights(response: &str) -> usize {
    let single = HIGHLIGHT.find_iter(response).filter(|found| !found.as_str().trim_matches('*').trim().is_empty());
    let double = DOUBLE_HIGHLIGHT.find_iter(response).filter(|found| {
        let text = found.as_str();
        !text[2..text.len() - 2].trim().is_empty()
    });
    single.count() + double.count()
}

fn is_json(response: &str) -> bool {
    let mut text = response.trim();
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    text = text.strip_suffix("```").unwrap_or(text);
    serde_json::from_str::<IgnoredAny>(text.trim()).is_ok()
}

fn are_two(response: &str) -> bool {
    let parts: Vec<&str> = response.split("******").map(str::trim).collect();
    let inner_is_empty = (1..parts.len().saturating_sub(1)).any(|index| parts[index].is_empty());
    let filled: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    !inner_is_empty && matches!(filled.as_slice(), [first, second] if first != second)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn follows(id: &str, arguments: &Value, response: &str) -> bool {
        Instruction::new(id, arguments.as_object().unwrap()).unwrap().is_followed(response)
    }

    #[test]
    fn paragraphs_may_be_empty_at_the_ends_alone() {
        let two =
            |response: &str| follows("length_constraints:number_paragraphs", &json!({"num_paragraphs": 2}), response);
        assert!(two("a *** b") && two("***\na\n***\nb\n***") && !two("a") && !two("a ***  *** b"));
    }

    #[test]
    fn the_first_word_ends_at_punctuation() {
        let arguments = json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"});
        let follow = |response: &str| follows("length_constraints:nth_paragraph_first_word", &arguments, response);
        assert!(follow("a\n\nelm, b") && follow("a\n\n'\"ELM's b") && !follow("a\n\nelms") && !follow("a\n\nelm\n\nb"));
        // Three line ends: the second part is empty, which is not the first word of anything.
        assert!(!follow("a\n\n\n\nelm"));
    }

    #[test]
    fn two_responses_differ() {
        let two = |response: &str| follows("combination:two_responses", &json!({}), response);
        assert!(two("a******b") && two("******a ****** b******"));
        assert!(!two("a****** a") && !two("a") && !two("a******b******c") && !two("a************b"));
    }

    #[test]
    fn formats() {
        let none = json!({});
        let json = |response: &str| follows("detectable_format:json_format", &none, response);
        assert!(json("```json\n{\"a\": [1, 2.5]}\n```") && json("3") && !json("{'a': 1}") && !json("{} x"));
        let title = |response: &str| follows("detectable_format:title", &none, response);
        assert!(title("<<A poem>>") && !title("<< >>") && !title("<a>"));
        let two = json!({"num_highlights": 2});
        let highlighted = |response: &str| follows("detectable_format:number_highlighted_sections", &two, response);
        assert!(highlighted("*a* and *b*") && !highlighted("*a* and * *") && highlighted("**a**\n**b**"));
        let bullets =
            |response: &str| follows("detectable_format:number_bullet_lists", &json!({"num_bullets": 2}), response);
        assert!(bullets("* a\n- b") && !bullets("** a\n- b") && !bullets("* a"));
        assert!(follows("startend:quotation", &none, " \"a\"\n") && !follows("startend:quotation", &none, "\""));
        let marker = json!({"postscript_marker": "P.S."});
        assert!(follows("detectable_content:postscript", &marker, "Bye.\nP. S. more"));
        assert!(!follows("detectable_content:postscript", &marker, "Bye. PS: more"));
    }
}
