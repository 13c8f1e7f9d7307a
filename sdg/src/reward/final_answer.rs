//! The answer within an answer: what is left when the reasoning before it is taken away.

use std::sync::LazyLock;

use regex::Regex;

/// `The answer is 5`, `**Answer:** 5`, `Final answer = 5`, `#### 5`.
static MARK: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)(?:\banswer\b\**\s*(?:is|:|=)[*:\s]*|####\s*)").ok());

/// What a text gives as its final answer: the inside of its last `\boxed{}`; else what follows the last mark (`answer is`,
/// `Answer:`, `####`) on its line; else the whole text. Reasoning in `<think>` tags is left out before.
pub(crate) fn final_answer(text: &str) -> &str {
    let text = text.rsplit("</think>").next().unwrap_or(text).trim();
    if let Some(inside) = boxed(text) {
        return inside.trim();
    }
    let mark = MARK.as_ref().and_then(|mark| mark.find_iter(text).last());
    let Some(mark) = mark else { return text };
    let rest = text[mark.end()..].trim_start();
    let line = rest.lines().next().unwrap_or_default().trim();
    if line.is_empty() { text } else { line }
}

/// The inside of the last `\boxed{}` whose braces are balanced.
fn boxed(text: &str) -> Option<&str> {
    for (start, mark) in text.rmatch_indices("\\boxed{") {
        let inside = &text[start + mark.len()..];
        let mut depth = 1;
        for (index, sign) in inside.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&inside[..index]);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_is_left_out() {
        for (text, expected) in [
            ("42", "42"),
            ("<think>Is it 7?</think>\n\n 8 ", "8"),
            ("First 3, then 4.\nThe answer is 7.", "7."),
            ("**Answer:** B) both", "B) both"),
            ("Answer: 3\nNo. Final answer: 4\nBye", "4"),
            ("3 + 4 = 7\n#### 7", "7"),
            (r"So \boxed{1} or rather $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
            (r"\boxed{2} and \boxed{3", "2"),
            ("The answer is", "The answer is"),
            ("", ""),
        ] {
            assert_eq!(final_answer(text), expected, "{text}");
        }
    }
}
