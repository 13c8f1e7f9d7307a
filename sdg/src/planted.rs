//! Rows of known quality, made of the seeds of a leaf: what a judge is held against before it decides about any other.

use espalier_dataset::normalized;
use espalier_taxonomy::{Leaf, Seed};

use crate::identity::number;

/// How a planted row was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A seed as a human wrote it: good.
    Seed,
    /// The answer of another seed of the leaf.
    SwappedAnswer,
    /// The answer of a seed of another leaf.
    OtherLeaf,
    /// The first third of the answer.
    Truncated,
    /// A refusal.
    Refusal,
}

impl Plant {
    /// The word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::SwappedAnswer => "swapped answer",
            Self::OtherLeaf => "answer of another leaf",
            Self::Truncated => "truncated answer",
            Self::Refusal => "refusal",
        }
    }

    /// Whether a judge should let it pass.
    pub fn is_good(self) -> bool {
        self == Self::Seed
    }
}

/// A row of known quality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planted {
    /// How it was made.
    pub plant: Plant,
    /// The number of the leaf's seed that its question is from.
    pub seed: usize,
    /// The text that the question is about.
    pub context: Option<String>,
    /// The question; of a seed of several turns its script.
    pub question: String,
    /// The right answer, or a wrong one.
    pub answer: String,
}

/// Up to `most` seeds of a leaf as they stand, each followed by one that is bad in one of four ways, in turn. `elsewhere` are
/// seeds of other leaves. A pure function of its arguments.
pub fn planted(leaf: &Leaf, elsewhere: &[&Seed], random: u64, most: usize) -> Vec<Planted> {
    let key = |what: &[u8], index: usize| {
        number(&[b"planted", what, &random.to_le_bytes(), leaf.id.as_bytes(), &(index as u64).to_le_bytes()])
    };
    let mut order: Vec<usize> = (0..leaf.seeds.len()).collect();
    order.sort_by_key(|index| key(b"order", *index));
    order.truncate(most);
    let mut rows = Vec::with_capacity(2 * order.len());
    for (turn, &index) in order.iter().enumerate() {
        let seed = &leaf.seeds[index];
        let row = |plant, answer: String| Planted {
            plant,
            seed: index,
            context: seed.context.clone(),
            question: seed.script().into_owned(),
            answer,
        };
        rows.push(row(Plant::Seed, seed.answer.clone()));
        let ways = [Plant::SwappedAnswer, Plant::OtherLeaf, Plant::Truncated, Plant::Refusal];
        let made = ways.iter().cycle().skip(turn % ways.len()).take(ways.len()).find_map(|&plant| {
            let start = key(plant.name().as_bytes(), index) as usize;
            spoiled(plant, index, &leaf.seeds, elsewhere, start).map(|answer| row(plant, answer))
        });
        rows.extend(made);
    }
    rows
}

/// An answer that is wrong in a way; `None` where the seeds give none.
fn spoiled(plant: Plant, index: usize, seeds: &[Seed], elsewhere: &[&Seed], start: usize) -> Option<String> {
    let seed = &seeds[index];
    let right = normalized(&seed.answer);
    match plant {
        Plant::Seed => None,
        Plant::SwappedAnswer => {
            let others = seeds.iter().cycle().skip(start % seeds.len()).take(seeds.len());
            others.map(|other| &other.answer).find(|answer| normalized(answer) != right).cloned()
        }
        Plant::OtherLeaf => {
            let others = elsewhere.iter().cycle().skip(start % elsewhere.len().max(1)).take(elsewhere.len());
            others.map(|other| &other.answer).find(|answer| normalized(answer) != right).cloned()
        }
        Plant::Truncated => {
            let words: Vec<&str> = seed.answer.split_whitespace().collect();
            // A third of a short answer may still be a right one.
            (words.len() >= 6).then(|| words[..words.len() / 3].join(" "))
        }
        Plant::Refusal => Some("I cannot answer this question.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        let answer = |number: usize| format!("The answer with number {number} is a long one indeed.");
        let seed = |number: usize| Seed {
            question: format!("What is {number}?"),
            answer: answer(number),
            context: None,
            line: 1,
            ..Seed::default()
        };
        Leaf { id: "x".into(), seeds: (0..8).map(seed).collect(), ..Leaf::default() }
    }

    #[test]
    fn bad_rows_are_bad_and_of_every_kind() {
        let leaf = leaf();
        let other = Seed { answer: "Something else".into(), ..Seed::default() };
        let rows = planted(&leaf, &[&other], 3, 6);
        assert_eq!(rows, planted(&leaf, &[&other], 3, 6));
        assert_ne!(rows, planted(&leaf, &[&other], 4, 6));
        assert_eq!(rows.len(), 12);
        for row in &rows {
            let right = &leaf.seeds[row.seed];
            assert_eq!((row.plant.is_good(), &row.question), (row.answer == right.answer, &right.question), "{row:?}");
        }
        let mut kinds: Vec<Plant> = rows.iter().map(|row| row.plant).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 5);
        assert!(rows.iter().all(|row| row.plant != Plant::Truncated || row.answer == "The answer with"));
    }

    #[test]
    fn a_judge_sees_what_was_said_before() {
        let mut leaf = leaf();
        leaf.seeds.truncate(1);
        leaf.seeds[0].history =
            vec![espalier_taxonomy::Exchange { user: "Hello.".into(), assistant: "Good day.".into() }];
        let rows = planted(&leaf, &[], 0, 8);
        assert_eq!(rows[0].question, "User: Hello.\nAssistant: Good day.\nUser: What is 0?");
    }

    #[test]
    fn seeds_that_all_answer_alike_are_never_swapped() {
        let mut leaf = leaf();
        for seed in &mut leaf.seeds {
            seed.answer = "Yes.".into();
        }
        let rows = planted(&leaf, &[], 0, 8);
        assert!(rows.iter().all(|row| matches!(row.plant, Plant::Seed | Plant::Refusal)), "{rows:?}");
    }
}
