//! The letter of a multiple-choice answer.

use std::sync::LazyLock;

use regex::Regex;

use super::final_answer::final_answer;

/// A letter that stands for itself: in parentheses, with a sign behind it, or at the end. `A` before a word is an article.
static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\(([A-J])\)|\b([A-J])(?:[).:,]|\**\s*$)").ok());

/// The letter that an answer chooses, from A to J; `None` where it chooses none, or several.
pub(crate) fn chosen_letter(answer: &str) -> Option<char> {
    let text = final_answer(answer).trim_matches(['*', '$', ' ', '"', '\'', '`']);
    let text = text.strip_prefix("\\text{").and_then(|inner| inner.strip_suffix('}')).unwrap_or(text).trim();
    let mut signs = text.chars();
    if let (Some(letter), None) = (signs.next(), signs.next()) {
        let letter = letter.to_ascii_uppercase();
        return ('A'..='J').contains(&letter).then_some(letter);
    }
    let pattern = LETTER.as_ref()?;
    // A letter that the answer begins with is the choice; letters in the explanation behind it are not.
    let mut found = pattern.captures_iter(text).peekable();
    let opening = found.peek().and_then(|captures| captures.get(0)).is_some_and(|whole| whole.start() == 0);
    let letters: Vec<char> = found
        .filter_map(|captures| captures.get(1).or(captures.get(2)))
        .filter_map(|letter| letter.as_str().chars().next())
        .collect();
    let first = *letters.first()?;
    (opening || letters.iter().all(|letter| *letter == first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_told_from_words() {
        for (answer, expected) in [
            ("B", Some('B')),
            ("b", Some('B')),
            ("(C)", Some('C')),
            ("**D**", Some('D')),
            ("B) because A. is wrong", Some('B')),
            ("B. The frog", Some('B')),
            ("I think that the answer is (A).", Some('A')),
            ("The answer is B", Some('B')),
            (r"\boxed{\text{E}}", Some('E')),
            ("A frog sat there.", None),
            ("Either (A) or (B)", None),
            ("I", Some('I')),
            ("K", None),
            ("no letter", None),
            ("", None),
        ] {
            assert_eq!(chosen_letter(answer), expected, "{answer}");
        }
    }
}
