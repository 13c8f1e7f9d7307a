//! Items that a row asks in other words.

use super::Benchmarks;
use crate::quality::meaning::{Vectors, nearest};
use crate::quality::sample::Sample;

/// An item whose question a row's question is like.
#[derive(Clone, Debug, PartialEq)]
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
        // Cut, not rounded: what is not the same never reads as 1.00.
        let cosine = (self.cosine * 100.0).floor() / 100.0;
        format!("contamination: {cosine:.2} like the question of {}:{}", self.benchmark, self.line)
    }
}

impl Benchmarks {
    /// Of each row the item most like it by the vectors that a model makes of their questions, where the cosine reaches `threshold`.
    ///
    /// # Errors
    /// What `embed` returns.
    pub fn alike<E>(
        &self,
        samples: &[Sample<'_>],
        threshold: f32,
        mut embed: impl FnMut(&[String]) -> Result<Vectors, E>,
    ) -> Result<Vec<Option<Alike>>, E> {
        let items: Vec<String> = self.items.iter().map(|item| item.question.clone()).collect();
        let questions: Vec<String> = samples.iter().map(|sample| sample.question().into_owned()).collect();
        let found = nearest(&embed(&questions)?, &embed(&items)?, threshold);
        let alike = |near: crate::quality::Near| {
            let item = &self.items[near.index];
            let item_text = item.question.clone();
            Alike { benchmark: item.benchmark.clone(), line: item.line, cosine: near.cosine, item_text }
        };
        Ok(found.into_iter().map(|near| near.map(alike)).collect())
    }
}
