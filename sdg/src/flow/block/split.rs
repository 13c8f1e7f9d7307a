//! Blocks that cut a text into pieces.

use super::filter::Condition;
use crate::flow::sample::{Passed, Refused, Rejected, Sample};
use crate::identity::number;
use crate::sentences::sentences;

/// A row for each piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Split {
    /// The text.
    pub(crate) column: String,
    /// Gets the piece.
    pub(crate) output: String,
    pub(crate) by: Pieces,
    /// An expression over the columns and the piece: others are none.
    pub(crate) keep: Option<String>,
    /// How many pieces of a text at most, drawn by the seed.
    pub(crate) most: Option<usize>,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    Sentences,
    Lines,
    /// Lines up to an empty one.
    Paragraphs,
}

impl Pieces {
    /// All, by the words for them.
    pub(crate) const ALL: [(&str, Self); 3] =
        [("sentences", Self::Sentences), ("lines", Self::Lines), ("paragraphs", Self::Paragraphs)];

    fn of(self, text: &str) -> Vec<String> {
        let lines = || text.lines().map(|line| line.trim().to_owned());
        match self {
            Self::Sentences => sentences(text),
            Self::Lines => lines().filter(|line| !line.is_empty()).collect(),
            Self::Paragraphs => {
                let lines: Vec<String> = lines().collect();
                let paragraphs = lines.split(String::is_empty).filter(|paragraph| !paragraph.is_empty());
                paragraphs.map(|paragraph| paragraph.join("\n")).collect()
            }
        }
    }
}

impl Split {
    /// Rows in the order of their pieces; a row without a piece is dropped.
    pub(crate) fn apply(&self, block: &str, rows: Vec<Sample>, seed: u64) -> Passed {
        let condition = self.keep.as_deref().map(Condition::new);
        let mut passed = Passed::default();
        for row in rows {
            let Some(text) = row.text(&self.column) else {
                let Refused { category, detail, .. } = Refused::missing(&self.column);
                passed.rejected.push(Rejected::new(row, block, category, detail));
                continue;
            };
            let writing = row.written.get(&self.column);
            let pieces = self.by.of(text).into_iter().enumerate().map(|(ordinal, piece)| {
                let mut child = row.child(block, ordinal);
                child.put(&self.output, piece.into());
                if let Some(writing) = writing {
                    child.written.insert(self.output.clone(), writing.clone());
                }
                child
            });
            let mut pieces: Vec<Sample> = match &condition {
                Some(condition) => pieces.filter(|piece| condition.check(piece).is_ok()).collect(),
                None => pieces.collect(),
            };
            if pieces.is_empty() {
                let detail = format!("`{}` has no piece that fits", self.column);
                passed.rejected.push(Rejected::new(row, block, "no piece", detail));
                continue;
            }
            if let Some(most) = self.most {
                let drawn = |piece: &Sample| number(&[b"split", &seed.to_le_bytes(), piece.id.as_bytes()]);
                let mut numbers: Vec<u64> = pieces.iter().map(drawn).collect();
                numbers.sort_unstable();
                let last = numbers[most.min(numbers.len()) - 1];
                pieces.retain(|piece| drawn(piece) <= last);
            }
            passed.kept.append(&mut pieces);
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::flow::sample::Origin;

    fn pieces(split: &Split, text: &str, seed: u64) -> Vec<String> {
        let columns = Map::from_iter([("text".to_owned(), Value::from(text))]);
        let passed = split.apply("s", vec![Sample::new("leaf", b"row", columns, Origin::default())], seed);
        assert_eq!(passed.kept.is_empty(), passed.rejected.len() == 1);
        passed.kept.iter().map(|row| row.text("piece").unwrap().to_owned()).collect()
    }

    fn split(by: Pieces) -> Split {
        Split { column: "text".into(), output: "piece".into(), by, keep: None, most: None }
    }

    #[test]
    fn a_text_is_cut_by_sentences_lines_or_paragraphs() {
        let text = "One. Two\nthree.\n\n Four.\n";
        assert_eq!(pieces(&split(Pieces::Sentences), text, 0), ["One.", "Two three.", "Four."]);
        assert_eq!(pieces(&split(Pieces::Lines), text, 0), ["One. Two", "three.", "Four."]);
        assert_eq!(pieces(&split(Pieces::Paragraphs), text, 0), ["One. Two\nthree.", "Four."]);
        assert_eq!(pieces(&split(Pieces::Lines), " \n", 0), [""; 0]);
    }

    #[test]
    fn the_seed_draws_among_the_pieces_that_fit() {
        let text: String =
            (0..40).map(|number| format!("{} {number}\n", if number % 2 == 0 { "a" } else { "b" })).collect();
        let of_a = Split { keep: Some("piece.startswith('a')".into()), most: Some(5), ..split(Pieces::Lines) };
        let drawn = pieces(&of_a, &text, 1);
        assert_eq!(drawn.len(), 5);
        assert!(
            drawn.iter().all(|piece| piece.starts_with('a'))
                && drawn.is_sorted_by_key(|piece| piece[2..].parse::<u32>().unwrap())
        );
        assert_eq!(drawn, pieces(&of_a, &text, 1));
        assert_ne!(drawn, pieces(&of_a, &text, 2));
        assert_eq!(pieces(&Split { most: Some(99), ..of_a.clone() }, &text, 1).len(), 20);
        assert!(pieces(&Split { keep: Some("piece == 'c'".into()), ..of_a }, &text, 1).is_empty());
    }
}
