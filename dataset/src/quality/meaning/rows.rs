//! Rows as vectors.

use super::vectors::Vectors;
use crate::quality::near::Compared;
use crate::quality::sample::Sample;

/// Rows as vectors: of the whole text and of what follows the text that a question is about. Both must be alike, else all
/// questions about one long passage would say the same.
#[derive(Clone, Debug, PartialEq)]
pub struct RowVectors {
    whole: Vectors,
    end: Vectors,
}

impl RowVectors {
    /// What is compared of rows, by the vectors that `embed` makes of texts.
    ///
    /// # Errors
    /// What `embed` returns.
    pub fn new<E>(
        rows: &[Sample<'_>],
        compared: Compared,
        mut embed: impl FnMut(&[String]) -> Result<Vectors, E>,
    ) -> Result<Self, E> {
        let (mut texts, mut ends) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in rows {
            let answer = match compared {
                Compared::Conversation => row.answer(),
                Compared::Question => "".into(),
            };
            texts.push(format!("{}\n{answer}", row.question()));
            ends.push(row.end_of_question().map(|end| format!("{end}\n{answer}")));
        }
        // The end of a row in one piece is the whole.
        let mut places = Vec::with_capacity(rows.len());
        for (row, end) in ends.into_iter().enumerate() {
            places.push(end.map_or(row, |end| {
                texts.push(end);
                texts.len() - 1
            }));
        }
        let all = embed(&texts)?;
        let whole: Vec<usize> = (0..rows.len()).collect();
        Ok(Self { whole: all.select(&whole), end: all.select(&places) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// Those of the given numbers, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { whole: self.whole.select(rows), end: self.end.select(rows) }
    }

    /// How alike one of these and one of `other` are: the lesser cosine of the two.
    pub(super) fn cosine(&self, row: usize, other: &Self, other_row: usize) -> f32 {
        self.whole.cosine(row, &other.whole, other_row).min(self.end.cosine(row, &other.end, other_row))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn two_questions_about_one_passage_are_not_alike() {
        let passage =
            "The heron stands in the reeds of the old pond until a careless frog comes near enough to be eaten.";
        let asked = [format!("{passage}\n\nWhere does it stand?"), format!("{passage}\n\nWho is eaten?")];
        let rows = [
            Sample::pair("a", &asked[0], "In the reeds."),
            Sample::pair("b", &asked[1], "The frog."),
            Sample::pair("c", "Who is eaten?", "The frog."),
        ];
        let embed = |texts: &[String]| Ok::<_, Infallible>(Vectors::of_words(texts));
        let vectors = RowVectors::new(&rows, Compared::Conversation, embed).unwrap();
        assert!(vectors.whole.cosine(0, &vectors.whole, 1) > 0.6);
        assert!(vectors.cosine(0, &vectors, 1) < 0.4, "{}", vectors.cosine(0, &vectors, 1));
        assert!((vectors.end.cosine(1, &vectors.end, 2) - 1.0).abs() < 1e-6);
        assert!(vectors.cosine(1, &vectors, 2) < 0.6, "another passage is another question");
        let (same, len) = (vectors.select(&[2, 0]), vectors.len());
        assert_eq!((len, same.is_empty(), same.cosine(1, &vectors, 0) > 0.999), (3, false, true));
        let asked = RowVectors::new(&rows[2..], Compared::Question, embed).unwrap();
        assert_eq!(
            asked,
            RowVectors::new(&[Sample::pair("", "Who is eaten?", "Nobody.")], Compared::Question, embed).unwrap()
        );
    }
}
