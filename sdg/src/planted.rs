//! Rows of known quality, made of the seeds of a leaf: what a judge is held against before it decides about any other.

use espalier_dataset::normalized;
use espalier_taxonomy::{Leaf, Seed};

use crate::identity::number;

/// How a planted row was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A seed as a human wrote it: good.
    Seed,
    /// The answer of another seed of the leaf, about the same text where there is one: a text supports it, and it still is wrong.
    SwappedAnswer,
    /// The answer of a seed of another leaf.
    OtherLeaf,
    /// The first third of the answer.
    Truncated,
    /// A refusal.
    Refusal,
    /// The question of a seed about another text.
    OtherText,
    /// A question that points at a text which is not there.
    Dangling,
}

/// What of a bad row is spoiled: what a judge is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoil {
    /// Its answer, in one of four ways.
    #[default]
    Answer,
    /// What its question is about.
    Subject,
    /// What its question refers to.
    Reference,
}

impl Spoil {
    /// All, by the words for them.
    pub const ALL: [(&str, Self); 3] =
        [("answer", Self::Answer), ("subject", Self::Subject), ("reference", Self::Reference)];

    /// The ways, of which bad rows take turns.
    fn ways(self) -> &'static [Plant] {
        match self {
            Self::Answer => &[Plant::SwappedAnswer, Plant::OtherLeaf, Plant::Truncated, Plant::Refusal],
            Self::Subject => &[Plant::OtherText],
            Self::Reference => &[Plant::Dangling],
        }
    }
}

/// Questions that nobody understands who has no text before them.
const DANGLING: [&str; 12] = [
    "What does the text say about it?",
    "When did that happen?",
    "Who is meant in the second paragraph?",
    "Why did they do this?",
    "What is the first thing that the author names?",
    "How many of them are listed above?",
    "Which of these is described here?",
    "What was the result of it?",
    "Where does this take place?",
    "What does the passage conclude?",
    "How large is it?",
    "What is it used for?",
];

impl Plant {
    /// The word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::SwappedAnswer => "swapped answer",
            Self::OtherLeaf => "answer of another leaf",
            Self::Truncated => "truncated answer",
            Self::Refusal => "refusal",
            Self::OtherText => "question about another text",
            Self::Dangling => "question that points at a text",
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
    /// The question; of a seed of several turns its script. Or one that is not about the text.
    pub question: String,
    /// The right answer, or a wrong one.
    pub answer: String,
}

/// Up to `most` seeds of a leaf as they stand, each followed by one that is bad in one of the ways of `spoil`, in turn. `elsewhere`
/// are seeds of other leaves. A pure function of its arguments.
pub fn planted(leaf: &Leaf, elsewhere: &[&Seed], random: u64, most: usize, spoil: Spoil) -> Vec<Planted> {
    let key = |what: &[u8], index: usize| {
        number(&[b"planted", what, &random.to_le_bytes(), leaf.id.as_bytes(), &(index as u64).to_le_bytes()])
    };
    let mut order: Vec<usize> = (0..leaf.seeds.len()).collect();
    order.sort_by_key(|index| key(b"order", *index));
    order.truncate(most);
    let mut rows = Vec::with_capacity(2 * order.len());
    for (turn, &index) in order.iter().enumerate() {
        let seed = &leaf.seeds[index];
        let good = Planted {
            plant: Plant::Seed,
            seed: index,
            context: seed.context.clone(),
            question: seed.script().into_owned(),
            answer: seed.answer.clone(),
        };
        let ways = spoil.ways();
        let made = ways.iter().cycle().skip(turn % ways.len()).take(ways.len()).find_map(|&plant| {
            let start = key(plant.name().as_bytes(), index) as usize;
            spoiled(&good, plant, &leaf.seeds, elsewhere, start)
        });
        rows.push(good);
        rows.extend(made);
    }
    rows
}

/// A good row made bad in a way; `None` where the seeds give none.
fn spoiled(good: &Planted, plant: Plant, seeds: &[Seed], elsewhere: &[&Seed], start: usize) -> Option<Planted> {
    let row = match plant {
        Plant::Seed => return None,
        Plant::Dangling => Planted { question: DANGLING[start % DANGLING.len()].to_owned(), ..good.clone() },
        Plant::OtherText => Planted { question: about_another_text(good, seeds, elsewhere, start)?, ..good.clone() },
        Plant::SwappedAnswer | Plant::OtherLeaf | Plant::Truncated | Plant::Refusal => {
            let answer = spoiled_answer(plant, &seeds[good.seed], seeds, elsewhere, start)?;
            Planted { answer, ..good.clone() }
        }
    };
    Some(Planted { plant, ..row })
}

/// The question of a seed that is about another text, of this leaf or else of another one.
fn about_another_text(good: &Planted, seeds: &[Seed], elsewhere: &[&Seed], start: usize) -> Option<String> {
    let here = seeds.iter().cycle().skip(start % seeds.len()).take(seeds.len());
    let there = elsewhere.iter().copied().cycle().skip(start % elsewhere.len().max(1)).take(elsewhere.len());
    // A seed without a text of its own may be about this one.
    let other = |seed: &&Seed| seed.context.is_some() && seed.context != good.context;
    here.filter(other).chain(there.filter(other)).next().map(|seed| seed.script().into_owned())
}

/// An answer that is wrong in a way.
fn spoiled_answer(plant: Plant, seed: &Seed, seeds: &[Seed], elsewhere: &[&Seed], start: usize) -> Option<String> {
    let right = normalized(&seed.answer);
    match plant {
        Plant::Seed | Plant::OtherText | Plant::Dangling => None,
        Plant::SwappedAnswer => {
            let others = || seeds.iter().cycle().skip(start % seeds.len()).take(seeds.len());
            let about_the_same = others().filter(|other| seed.context.is_some() && other.context == seed.context);
            let mut answers = about_the_same.chain(others()).map(|other| &other.answer);
            answers.find(|answer| normalized(answer) != right).cloned()
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
        let rows = planted(&leaf, &[&other], 3, 6, Spoil::Answer);
        assert_eq!(rows, planted(&leaf, &[&other], 3, 6, Spoil::Answer));
        assert_ne!(rows, planted(&leaf, &[&other], 4, 6, Spoil::Answer));
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
        let rows = planted(&leaf, &[], 0, 8, Spoil::Answer);
        assert_eq!(rows[0].question, "User: Hello.\nAssistant: Good day.\nUser: What is 0?");
    }

    #[test]
    fn questions_are_spoiled_and_answers_left_alone() {
        let mut leaf = leaf();
        for (number, seed) in leaf.seeds.iter_mut().enumerate() {
            seed.context = Some(format!("Text {}", number / 4));
        }
        let of_text = |text: &str| -> Vec<&str> {
            let seeds = leaf.seeds.iter().filter(|seed| seed.context.as_deref() == Some(text));
            seeds.map(|seed| seed.question.as_str()).collect()
        };
        for (spoil, plant) in [(Spoil::Subject, Plant::OtherText), (Spoil::Reference, Plant::Dangling)] {
            let rows = planted(&leaf, &[], 0, 8, spoil);
            assert_eq!(rows.iter().filter(|row| row.plant == plant).count(), 8, "{rows:?}");
            for row in &rows {
                let context = row.context.as_deref().unwrap_or_default();
                assert_eq!(of_text(context).contains(&row.question.as_str()), row.plant.is_good(), "{row:?}");
                assert_eq!(row.answer, leaf.seeds[row.seed].answer);
            }
        }
        for seed in &mut leaf.seeds {
            seed.context = Some("One text".into());
        }
        assert!(planted(&leaf, &[], 0, 8, Spoil::Subject).iter().all(|row| row.plant.is_good()));
        let other = Seed { question: "Where?".into(), context: Some("Another".into()), ..Seed::default() };
        assert!(planted(&leaf, &[&other], 0, 8, Spoil::Subject).iter().any(|row| row.question == "Where?"));
    }

    #[test]
    fn a_swapped_answer_is_about_the_same_text_where_there_is_one() {
        let mut leaf = leaf();
        for (number, seed) in leaf.seeds.iter_mut().enumerate().skip(1) {
            seed.context = Some(format!("Text {}", number / 4));
        }
        let rows = planted(&leaf, &[], 0, 8, Spoil::Answer);
        let swapped: Vec<&Planted> = rows.iter().filter(|row| row.plant == Plant::SwappedAnswer).collect();
        assert!(swapped.len() >= 2);
        for row in swapped {
            let from = leaf.seeds.iter().find(|seed| seed.answer == row.answer).unwrap();
            assert!(from.context == row.context || row.context.is_none(), "{row:?}");
            assert_ne!(row.answer, leaf.seeds[row.seed].answer);
        }
    }

    #[test]
    fn seeds_that_all_answer_alike_are_never_swapped() {
        let mut leaf = leaf();
        for seed in &mut leaf.seeds {
            seed.answer = "Yes.".into();
        }
        let rows = planted(&leaf, &[], 0, 8, Spoil::Answer);
        assert!(rows.iter().all(|row| matches!(row.plant, Plant::Seed | Plant::Refusal)), "{rows:?}");
    }
}
