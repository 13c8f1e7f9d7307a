//! Twins among the rows.

use std::collections::HashSet;

use crate::row::{Row, Verdict};

/// A text by which twins are known: lower case, white space collapsed, without punctuation at its ends.
pub fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    words.join(" ").trim_matches(|c: char| c.is_ascii_punctuation() || c.is_whitespace()).to_owned()
}

/// Rejects every accepted row whose normalised question an earlier accepted row of the same leaf has.
pub fn drop_duplicates(rows: &mut [Row]) {
    let mut seen: HashSet<(String, String)> = HashSet::new();
    let mut first: Vec<(usize, String)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if row.verdict != Verdict::Accepted {
            continue;
        }
        let Some(question) = row.question() else { continue };
        if !seen.insert((row.leaf.clone(), normalized(question))) {
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
}
