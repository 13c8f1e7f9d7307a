//! "Did you mean": the known word that a person most likely wanted.

/// The known word closest to `word`, when it is close enough to be a slip of the hand.
pub fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Characters put in, left out, changed or swapped with their neighbour on the way from one word to the other.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let same = usize::from(from[i - 1] != to[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_mended_and_other_words_left_alone() {
        let known = ["rank", "alpha", "learning_rate", "epochs"];
        assert_eq!(closest("rnak", &known), Some("rank"));
        assert_eq!(closest("learnig_rate", &known), Some("learning_rate"));
        assert_eq!(closest("lernin_rat", &known), Some("learning_rate"));
        assert_eq!(closest("temperature", &known), None);
        assert_eq!(closest("", &known), None);
    }
}
