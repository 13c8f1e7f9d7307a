//! Rows that are a seed again.

use std::collections::HashSet;

use crate::duplicates::normalized;
use crate::quality::shingles::Shingles;

/// From here on a text is a seed's text.
const SAME: f64 = 0.8;
/// Shingles that an answer must have: "Yes." is no copy.
const SHINGLES: usize = 30;

/// The seeds of a leaf.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    questions: HashSet<String>,
    shingles: Vec<(Shingles, Shingles)>,
}

impl Seeds {
    /// Seeds as questions and answers.
    pub fn new<'a>(seeds: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut known = Self::default();
        for (question, answer) in seeds {
            known.questions.insert(normalized(question));
            known.shingles.push((Shingles::new(question), Shingles::new(answer)));
        }
        known
    }

    /// Which seed a row repeats: its question, or an answer of some length.
    pub(super) fn copied(&self, question: &str, answer: &str) -> Option<String> {
        if self.questions.contains(&normalized(question)) {
            return Some("the question is a seed's".to_owned());
        }
        let (asked, said) = (Shingles::new(question), Shingles::new(answer));
        self.shingles.iter().enumerate().find_map(|(seed, (its_question, its_answer))| {
            let like = its_question.similarity(&asked);
            if like >= SAME {
                return Some(format!("the question is {like:.2} like that of seed {}", seed + 1));
            }
            let like = its_answer.similarity(&said);
            (said.len() >= SHINGLES && like >= SAME)
                .then(|| format!("the answer is {like:.2} like that of seed {}", seed + 1))
        })
    }
}
