//! Rejection sampling: which of several right answers to one question are kept.

use std::collections::HashSet;

use espalier_dataset::normalized;
use serde::{Deserialize, Serialize};

/// Which right answers come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The shortest: a right answer without detours teaches best.
    #[default]
    Shortest,
    /// The shortest, then always the one least like those kept.
    Diverse,
}

/// The numbers of the answers to keep, at most `most`, in the order of preference. `answers` are texts and whether they are
/// right; of those that say the same, the first counts.
pub fn select(answers: &[(&str, bool)], most: usize, preference: Preference) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut right: Vec<usize> =
        (0..answers.len()).filter(|&index| answers[index].1 && seen.insert(normalized(answers[index].0))).collect();
    right.sort_by_key(|&index| (answers[index].0.chars().count(), index));
    if preference == Preference::Shortest {
        right.truncate(most);
        return right;
    }
    let shingles: Vec<HashSet<Vec<String>>> = answers.iter().map(|(text, _)| shingles(text)).collect();
    let mut kept: Vec<usize> = Vec::new();
    while kept.len() < most && !right.is_empty() {
        let nearest =
            |index: usize| kept.iter().map(|&other| similarity(&shingles[index], &shingles[other])).fold(0.0, f64::max);
        // The first among equals, which is the shortest.
        let mut place = 0;
        for candidate in 1..right.len() {
            if nearest(right[candidate]) < nearest(right[place]) {
                place = candidate;
            }
        }
        kept.push(right.remove(place));
    }
    kept
}

/// Runs of three words; of shorter texts, all of them.
fn shingles(text: &str) -> HashSet<Vec<String>> {
    let text = normalized(text);
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    match words.len() {
        0 => HashSet::new(),
        1 | 2 => [words].into(),
        _ => words.windows(3).map(<[String]>::to_vec).collect(),
    }
}

/// What two sets have in common, as a share of both (Jaccard).
fn similarity(one: &HashSet<Vec<String>>, other: &HashSet<Vec<String>>) -> f64 {
    let common = one.intersection(other).count();
    let all = one.len() + other.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers_are_kept_by_preference() {
        let answers = [
            ("first add three and four then say seven", true),
            ("wrong", false),
            ("first add three and four then seven", true),
            ("count on from four: five, six, and then the seventh is seven", true),
            ("First add three and four, then seven", true),
            ("FIRST add three and four then seven.", true),
        ];
        assert_eq!(select(&answers, 2, Preference::Shortest), [2, 4]);
        assert_eq!(select(&answers, 9, Preference::Shortest), [2, 4, 0, 3]);
        assert_eq!(select(&answers, 2, Preference::Diverse), [2, 3]);
        assert_eq!(select(&answers, 0, Preference::Diverse), Vec::<usize>::new());
        assert_eq!(select(&[("no", false)], 3, Preference::Diverse), Vec::<usize>::new());
    }
}
