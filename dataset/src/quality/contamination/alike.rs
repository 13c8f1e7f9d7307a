//! Items that a row asks in other words.

use serde::Serialize;

use super::Benchmarks;
use crate::quality::meaning::{Near, Vectors, floor, nearest};
use crate::quality::sample::Sample;

/// An item whose question a row's question is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alike {
    /// Name of the benchmark.
    pub benchmark: String,
    /// Line of the item in the file of the benchmark.
    pub line: usize,
    /// The cosine of the two questions.
    pub cosine: f32,
    /// The item's question.
    pub item_text: String,
}

impl Alike {
    /// The reason of the rejection.
    pub fn reason(&self) -> String {
        format!("contamination: {:.2} like the question of {}:{}", floor(self.cosine), self.benchmark, self.line)
    }
}

impl Benchmarks {
    /// What the items ask, for the vectors that [`Self::alike`] compares with.
    pub fn questions(&self) -> Vec<String> {
        self.items.iter().map(|item| item.question.clone()).collect()
    }

    /// Of each row the item most like its question, or like what its question ends with, where the cosine reaches `threshold`;
    /// `questions` are the vectors that `embed` made of [`Self::questions`].
    ///
    /// # Errors
    /// What `embed` returns.
    pub fn alike<E>(
        &self,
        rows: &[Sample<'_>],
        questions: &Vectors,
        threshold: f32,
        mut embed: impl FnMut(&[String]) -> Result<Vectors, E>,
    ) -> Result<Vec<Option<Alike>>, E> {
        let mut texts: Vec<String> = rows.iter().map(|row| row.question().into_owned()).collect();
        let ends: Vec<(usize, String)> =
            rows.iter().enumerate().filter_map(|(row, sample)| Some((row, sample.end_of_question()?))).collect();
        texts.extend(ends.iter().map(|(_, end)| end.clone()));
        let mut found = nearest(&embed(&texts)?, questions, threshold);
        let of_ends = found.split_off(rows.len());
        for ((row, _), near) in ends.iter().zip(of_ends) {
            found[*row] = near.map(|near| near.or(found[*row])).or(found[*row]);
        }
        let alike = |near: Near| {
            let item = &self.items[near.index];
            let item_text = item.question.clone();
            Alike { benchmark: item.benchmark.clone(), line: item.line, cosine: near.cosine, item_text }
        };
        Ok(found.into_iter().map(|near| near.map(alike)).collect())
    }
}
