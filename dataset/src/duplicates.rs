//! Twins among the rows.

use std::collections::HashSet;

use crate::quality::Sample;
use crate::row::{Row, Verdict};

/// A text by which twins are known: lower case, white space collapsed, without punctuation at its ends.
pub fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    words.join(" ").trim_matches(|c: char| c.is_ascii_punctuation() || c.is_whitespace()).to_owned()
}

/// Rejects every accepted row of which everything that the user asks, normalised, is asked in an earlier accepted row of the
/// same leaf.
pub fn drop_duplicates(rows: &mut [Row]) {
    let mut seen: HashSet<(String, String)> = HashSet::new();
    let mut first: Vec<(usize, String)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if row.verdict != Verdict::Accepted {
            continue;
        }
        if row.question().is_none() {
            continue;
        }
        let asked = Sample::from(row).question();
        if !seen.insert((row.leaf.clone(), normalized(&asked))) {
            first.push((index, "duplicate: an earlier row has this question".to_owned()));
        }
    }
    for (index, reason) in first {
        rows[index].verdict = Verdict::Rejected;
        rows[index].reason = reason;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Turn;

    #[test]
    fn the_first_stays() {
        let row = |leaf: &str, question: &str, verdict| Row {
            leaf: leaf.into(),
            turns: vec![Turn::new("user", question)],
            verdict,
            ..Row::default()
        };
        let mut rows = [
            row("a", "What is  it?", Verdict::Rejected),
            row("a", "What is it?", Verdict::Accepted),
            row("a", "what is\nit", Verdict::Accepted),
            row("b", "What is it?", Verdict::Accepted),
        ];
        drop_duplicates(&mut rows);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::Rejected, Verdict::Accepted, Verdict::Rejected, Verdict::Accepted]);
        assert_eq!(rows[2].reason_category(), "duplicate");
    }

    #[test]
    fn conversations_that_begin_alike_are_no_twins() {
        let row = |asked: &[&str]| Row {
            turns: asked.iter().flat_map(|asked| [Turn::new("user", *asked), Turn::new("assistant", "Yes.")]).collect(),
            verdict: Verdict::Accepted,
            ..Row::default()
        };
        let mut rows =
            [row(&["Hello.", "Is it far?"]), row(&["Hello.", "Is it near?"]), row(&["Hello.", "Is it far?"])];
        drop_duplicates(&mut rows);
        let verdicts = rows.map(|row| row.verdict);
        assert_eq!(verdicts, [Verdict::Accepted, Verdict::Accepted, Verdict::Rejected]);
    }
}
