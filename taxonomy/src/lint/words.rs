//! Texts as sets of words in a row, and which of them are nearly the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Words in lower case without punctuation.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// The text as it is compared word by word.
pub(super) fn normal(text: &str) -> String {
    words(text).join(" ")
}

/// Hashes of every `length` words in a row; of a shorter text, one hash of all of it.
pub(super) fn shingles(words: &[String], length: usize) -> HashSet<u64> {
    let hash = |window: &[String]| {
        let mut hasher = DefaultHasher::new();
        window.hash(&mut hasher);
        hasher.finish()
    };
    if words.is_empty() {
        HashSet::new()
    } else if words.len() < length {
        HashSet::from([hash(words)])
    } else {
        words.windows(length).map(hash).collect()
    }
}

/// Pairs of texts, by number, whose shingles have at least this Jaccard index, with it; the first number is the smaller.
///
/// A pair above the threshold has a shingle in common among the rarest `(1 - threshold) n + 1` of each (the prefix filter of
/// Chaudhuri et al., 2006), so only pairs that share one of these are compared.
pub(super) fn near_pairs(sets: &[HashSet<u64>], threshold: f64) -> Vec<(usize, usize, f64)> {
    let mut frequency: HashMap<u64, usize> = HashMap::new();
    for shingle in sets.iter().flatten() {
        *frequency.entry(*shingle).or_default() += 1;
    }
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut pairs = BTreeMap::new();
    for (number, set) in sets.iter().enumerate() {
        let mut ordered: Vec<u64> = set.iter().copied().collect();
        ordered.sort_by_key(|shingle| (frequency[shingle], *shingle));
        // A little less than the product, which may lie above its true value by a rounding.
        let kept = (threshold * ordered.len() as f64 - 1e-9).ceil().max(1.0) as usize;
        let prefix = (ordered.len() + 1).saturating_sub(kept);
        for shingle in ordered.iter().take(prefix) {
            let postings = index.entry(*shingle).or_default();
            for &other in postings.iter() {
                pairs.entry((other, number)).or_insert_with(|| jaccard(&sets[other], set));
            }
            postings.push(number);
        }
    }
    pairs.into_iter().filter(|(_, index)| *index >= threshold).map(|((a, b), index)| (a, b, index)).collect()
}

/// The share of what both have in what either has.
pub(super) fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let common = a.intersection(b).count();
    let either = a.len() + b.len() - common;
    if either == 0 { 0.0 } else { common as f64 / either as f64 }
}

/// Words that a text may use whatever it is about.
pub(super) fn is_common(word: &str) -> bool {
    const COMMON: [&str; 60] = [
        "about",
        "after",
        "also",
        "because",
        "been",
        "before",
        "being",
        "between",
        "both",
        "called",
        "could",
        "does",
        "each",
        "following",
        "from",
        "have",
        "here",
        "however",
        "include",
        "includes",
        "including",
        "into",
        "known",
        "like",
        "made",
        "many",
        "more",
        "most",
        "much",
        "only",
        "other",
        "over",
        "said",
        "same",
        "several",
        "should",
        "some",
        "such",
        "than",
        "that",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "used",
        "very",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "will",
        "with",
        "would",
    ];
    word.chars().count() < 4 && !word.chars().any(|c| c.is_ascii_digit()) || COMMON.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_words_are_sorted_for_the_search() {
        assert!(is_common("would") && is_common("about") && is_common("of") && !is_common("frog") && !is_common("42"));
    }

    proptest! {
        #[test]
        fn the_filter_finds_every_near_pair(texts in prop::collection::vec("([a-c] ){0,8}", 0..12), tenths in 1_u8..=10) {
            let threshold = f64::from(tenths) / 10.0;
            let sets: Vec<_> = texts.iter().map(|text| shingles(&words(text), 2)).collect();
            let mut all = Vec::new();
            for (b, second) in sets.iter().enumerate() {
                for (a, first) in sets[..b].iter().enumerate() {
                    let index = jaccard(first, second);
                    if index >= threshold {
                        all.push((a, b, index));
                    }
                }
            }
            all.sort_by_key(|(a, b, _)| (*a, *b));
            prop_assert_eq!(near_pairs(&sets, threshold), all);
        }
    }
}
