//! A text as the set of its shingles.

use std::fmt::Write as _;

use super::words::{hash_of, mixed, words};

/// Words in a shingle of a long text.
const WORDS: usize = 5;
/// Characters in a shingle of a short text.
const CHARACTERS: usize = 5;
/// A text of fewer words is short. Below it one exchanged word of ordinary length leaves a Jaccard index under 0.8 by characters;
/// above it a word added at an end leaves it over 0.8 by words.
const SHORT: usize = 16;

/// The set of a text's shingles as hashes, sorted; what two texts have in common is how alike they are.
///
/// A text of 16 words and more is the set of its runs of 5 words. A shorter one is the set of its runs of 5 characters, over
/// words joined by single blanks; and its numbers are kept apart, since two short texts that differ in a number ask for
/// different things ("What is 7 times 8?"). A text without any letter or digit is the set of runs of its own characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shingles {
    hashes: Vec<u32>,
    /// Hash of the numbers in their order; 0 of a long text.
    numbers: u32,
}

impl Shingles {
    /// The shingles of a text.
    pub fn new(text: &str) -> Self {
        let words = words(text);
        if words.len() < SHORT { Self::short(&words, text) } else { Self::long(&words) }
    }

    fn long(words: &[String]) -> Self {
        let hashes: Vec<u64> = words.iter().map(|word| hash_of(word.bytes())).collect();
        let run = |run: &[u64]| upper(run.iter().fold(0, |before, &word| mixed(before ^ word)));
        Self::from_parts(hashes.windows(WORDS).map(run).collect(), 0)
    }

    fn short(words: &[String], text: &str) -> Self {
        let mut joined = words.join(" ");
        if words.is_empty() {
            joined.extend(text.chars().filter(|letter| !letter.is_whitespace()));
        }
        let letters: Vec<char> = joined.chars().collect();
        let run = |run: &[char]| upper(hash_of(run.iter().flat_map(|letter| u32::from(*letter).to_le_bytes())));
        let hashes = if letters.is_empty() || letters.len() >= CHARACTERS {
            letters.windows(CHARACTERS).map(run).collect()
        } else {
            vec![run(&letters)]
        };
        let mut numbers = String::new();
        for word in words.iter().filter(|word| word.contains(|letter: char| letter.is_numeric())) {
            // Writing to a string cannot fail.
            let _ = write!(numbers, "{word} ");
        }
        Self::from_parts(hashes, if numbers.is_empty() { 0 } else { upper(hash_of(numbers.bytes())) })
    }

    /// A set from hashes in any order.
    pub(super) fn from_parts(mut hashes: Vec<u32>, numbers: u32) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self { hashes, numbers }
    }

    /// The hashes, sorted.
    pub(super) fn hashes(&self) -> &[u32] {
        &self.hashes
    }

    /// The hash of the numbers.
    pub(super) fn numbers(&self) -> u32 {
        self.numbers
    }

    /// How many shingles there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is nothing to compare.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The Jaccard index: shingles in both, of those in either; 0 where nothing can be compared or the numbers of short texts
    /// differ. Two shingles that are not the same are taken for the same once in 2^32.
    pub fn similarity(&self, other: &Self) -> f64 {
        if self.numbers != other.numbers {
            return 0.0;
        }
        let (mut left, mut right) = (self.hashes.iter().peekable(), other.hashes.iter().peekable());
        let mut shared = 0;
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.cmp(b) {
                std::cmp::Ordering::Less => drop(left.next()),
                std::cmp::Ordering::Greater => drop(right.next()),
                std::cmp::Ordering::Equal => {
                    shared += 1;
                    left.next();
                    right.next();
                }
            }
        }
        let either = self.hashes.len() + other.hashes.len() - shared;
        if either == 0 { 0.0 } else { shared as f64 / either as f64 }
    }

    /// No two sets of these sizes are more alike than this.
    pub(super) fn most(sizes: (usize, usize)) -> f64 {
        let (fewer, more) = (sizes.0.min(sizes.1), sizes.0.max(sizes.1));
        if more == 0 { 0.0 } else { fewer as f64 / more as f64 }
    }
}

/// The upper half mixes best.
fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(a: &str, b: &str) -> f64 {
        Shingles::new(a).similarity(&Shingles::new(b))
    }

    #[test]
    fn short_texts_are_compared_by_characters_and_their_numbers() {
        let paris = "What is the capital city of France?";
        assert!((alike(paris, "what is THE capital  city of france") - 1.0).abs() < 1e-9);
        assert!(alike(paris, "What is the capital city of France, please?") > 0.75);
        assert!(alike(paris, "What is the capital city of Germany?") < 0.8);
        assert!(
            alike("How much is 17 times 23 exactly, in words?", "How much is 17 times 24 exactly, in words?") == 0.0
        );
        assert!((alike("?!...", "?!...") - 1.0).abs() < 1e-9);
        assert!((alike("ab", "ab") - 1.0).abs() < 1e-9 && alike("ab", "ac") == 0.0);
        assert!(alike("", "") == 0.0 && alike("", "a") == 0.0);
    }

    #[test]
    fn long_texts_are_compared_by_runs_of_words() {
        let words: Vec<String> = (0..60).map(|i| format!("word{}", char::from(b'a' + i % 26))).collect();
        let mut other: Vec<String> = (0..60).map(|i| format!("w{i}")).collect();
        assert!(alike(&words.join(" "), &other.join(" ")) == 0.0);
        let whole = other.join(" ");
        other[30] = "another".into();
        // 56 runs each, of which the 5 around the exchanged word differ: 51 of 61.
        assert!((alike(&whole, &other.join(" ")) - 51.0 / 61.0).abs() < 1e-9);
    }
}
