//! What one text says about another, and choices that follow from a text.

use std::collections::HashSet;

use espalier_dataset::normalized;
use minijinja::{Environment, Error, ErrorKind};

use crate::identity;
use crate::reward::final_answer;

pub(crate) fn register(environment: &mut Environment<'static>) {
    environment.add_filter("support", |answer: &str, text: &str| support(answer, text));
    environment.add_filter("beyond", |answer: &str, text: &str| beyond(answer, text));
    environment.add_filter("spread", spread);
    environment.add_filter("final_answer", |text: &str| final_answer(text).to_owned());
}

/// The words that carry a text's claims: those of four letters and more, and numbers.
fn content_words(text: &str) -> Vec<String> {
    let text = normalized(text);
    let words = text.split(|sign: char| !sign.is_alphanumeric());
    words
        .filter(|word| word.chars().count() >= 4 || word.chars().any(|letter| letter.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

/// The share of an answer's content words that stand in a text; 0 for an answer without any.
pub(crate) fn support(answer: &str, text: &str) -> f64 {
    let known: HashSet<String> = content_words(text).into_iter().collect();
    let said = content_words(answer);
    let found = said.iter().filter(|word| known.contains(*word)).count();
    if said.is_empty() { 0.0 } else { found as f64 / said.len() as f64 }
}

/// The content words of an answer that do not stand in a text: what it says beyond its question.
fn beyond(answer: &str, text: &str) -> String {
    let known: HashSet<String> = content_words(text).into_iter().collect();
    let mut words = content_words(answer);
    words.retain(|word| !known.contains(word));
    words.join(" ")
}

/// A whole number below `count` that follows from a text; over many texts each is equally frequent.
fn spread(text: &str, count: u64) -> Result<u64, Error> {
    if count == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "spread(0) has nothing to choose from"));
    }
    // The remainder of a 64-bit number is even to one part in 2^64 / count.
    Ok(identity::number(&[b"spread", text.as_bytes()]) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_rests_on_its_text() {
        let text = "The wires (of steel) are 40 centimetres apart.";
        assert!((support("It is steel; 40 centimetres apart.", text) - 1.0).abs() < 1e-9);
        assert!((support("They are 50 metres apart.", text) - 0.25).abs() < 1e-9);
        assert!(support("", text).abs() < 1e-9);
        assert_eq!(beyond("M9 is used for cordons.", "What is M9 used for?"), "cordons");
        assert_eq!(beyond("Which wires are of steel?", text), "which");
        assert_eq!(beyond("", text), "");
    }

    #[test]
    fn places_are_spread_evenly() {
        let mut counts = [0_u32; 4];
        for index in 0..4000 {
            counts[usize::try_from(spread(&format!("Question {index}?"), 4).unwrap()).unwrap()] += 1;
        }
        // Four standard deviations of a binomial of 4000 and 1/4.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 110), "{counts:?}");
        assert!(spread("x", 0).is_err());
    }
}
