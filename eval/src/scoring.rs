//! When an answer is right, and what of a response is the answer.

use serde::{Deserialize, Serialize};

/// What does not matter when two texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normalization {
    /// Runs of white space count as one space. (White space at the ends never counts.)
    pub collapse_whitespace: bool,
    /// Upper and lower case are the same.
    pub ignore_case: bool,
    /// Points, quotation marks and markdown stars around the text do not count.
    pub trim_punctuation: bool,
}

impl Default for Normalization {
    fn default() -> Self {
        Self { collapse_whitespace: true, ignore_case: true, trim_punctuation: true }
    }
}

impl Normalization {
    /// The text without what does not matter.
    pub fn apply(self, text: &str) -> String {
        let mut text = text.trim();
        if self.trim_punctuation {
            text = text.trim_matches(|c: char| {
                c.is_whitespace() || matches!(c, '.' | ',' | ';' | ':' | '!' | '"' | '\'' | '`' | '*')
            });
        }
        let mut result = if self.collapse_whitespace {
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        } else {
            text.to_owned()
        };
        if self.ignore_case {
            result = result.to_lowercase();
        }
        result
    }
}

/// When a generated answer is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checker {
    /// The response equals the right answer.
    Exact(Normalization),
    /// The response contains the right answer as whole words.
    Contains(Normalization),
    /// The last number of the response equals the number of the right answer.
    Number,
    /// The caller decides; without its closure this is `Exact` with the usual normalisation.
    Verify,
}

impl Default for Checker {
    fn default() -> Self {
        Self::Exact(Normalization::default())
    }
}

impl Checker {
    /// Whether `response` is right where `answer` would be.
    pub fn is_correct(self, response: &str, answer: &str) -> bool {
        match self {
            Self::Exact(normalization) => normalization.apply(response) == normalization.apply(answer),
            Self::Verify => Self::default().is_correct(response, answer),
            Self::Contains(normalization) => {
                contains_words(&normalization.apply(response), &normalization.apply(answer))
            }
            Self::Number => match (last_number(response), last_number(answer)) {
                (Some(found), Some(expected)) => found == expected,
                _ => false,
            },
        }
    }

    /// The part of the response that is compared: a number, or the normalised text.
    pub fn extract(self, response: &str) -> String {
        match self {
            Self::Exact(normalization) | Self::Contains(normalization) => normalization.apply(response),
            Self::Verify => response.trim().to_owned(),
            Self::Number => last_number(response).unwrap_or_default(),
        }
    }

    /// What lm-eval would call the metric.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Exact(_) | Self::Number => "exact_match",
            Self::Contains(_) => "contains",
            Self::Verify => "verified",
        }
    }
}

/// Whether `part` stands in `text` with no letter or digit directly before or after it.
fn contains_words(text: &str, part: &str) -> bool {
    if part.is_empty() {
        return false;
    }
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(part)
        .any(|(at, _)| boundary(text[..at].chars().next_back()) && boundary(text[at + part.len()..].chars().next()))
}

/// The last number of a text in one canonical form: without thousands separators, plus sign, leading zeros, and zeros after the
/// decimal point. Compared as text, so that no digit is lost to rounding.
pub fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    let mut start = end - 1;
    // Going left: digits since the last separator, and whether the decimal point has been passed.
    let (mut digits, mut point, mut comma) = (1, false, false);
    while start > 0 {
        let before_separator = start > 1 && bytes[start - 2].is_ascii_digit();
        match bytes[start - 1] {
            b'0'..=b'9' => digits += 1,
            b'.' if before_separator && !point && !comma => (digits, point) = (0, true),
            b',' if before_separator && digits == 3 => (digits, comma) = (0, true),
            _ => break,
        }
        start -= 1;
    }
    // A minus belongs to the number unless something stands directly before it (a range, a date, a compound word).
    let negative = start > 0 && bytes[start - 1] == b'-' && (start == 1 || !bytes[start - 2].is_ascii_alphanumeric());
    let number: String = text[start..end].chars().filter(|&c| c != ',').collect();
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let mut canonical = String::new();
    if negative && !(whole.is_empty() && fraction.is_empty()) {
        canonical.push('-');
    }
    canonical.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        canonical.push('.');
        canonical.push_str(fraction);
    }
    Some(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_ignores_what_does_not_matter() {
        let checker = Checker::default();
        assert!(checker.is_correct(" **The  Rhine.**\n", "the Rhine"));
        assert!(!checker.is_correct("The Rhine river", "the Rhine"));
        let strict =
            Checker::Exact(Normalization { collapse_whitespace: false, ignore_case: false, trim_punctuation: false });
        assert!(strict.is_correct(" a ", "a") && !strict.is_correct("A", "a") && !strict.is_correct("a.", "a"));
    }

    #[test]
    fn contains_finds_whole_words() {
        let checker = Checker::Contains(Normalization::default());
        assert!(checker.is_correct("It is 12 May, a Sunday.", "12 may"));
        assert!(!checker.is_correct("It is 112 May.", "12 may"));
        assert!(!checker.is_correct("anything", ""));
    }

    #[test]
    fn numbers_in_one_form() {
        for (text, expected) in [
            ("So the answer is $1,234.50.", Some("1234.5")),
            ("x = -0.250", Some("-0.25")),
            ("#### 72", Some("72")),
            ("2024-05", Some("5")),
            ("from 3 to 007", Some("7")),
            ("-0", Some("0")),
            ("1. Then 2.", Some("2")),
            ("90071992547409931", Some("90071992547409931")),
            ("1,2,3", Some("3")),
            ("version 1.2.3", Some("2.3")),
            ("12,345,678", Some("12345678")),
            ("none", None),
            ("é5", Some("5")),
        ] {
            assert_eq!(last_number(text).as_deref(), expected, "{text}");
        }
        assert!(Checker::Number.is_correct("It is 42.0!", "42"));
        assert!(!Checker::Number.is_correct("no idea", "42"));
    }
}
