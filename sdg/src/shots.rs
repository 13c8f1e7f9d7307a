//! Which seeds stand before a question.
//!
//! A small teacher copies what it sees: seeds that are written like the question teach it more than any others. Seeds are ranked
//! by the features that they share with the question: words, beginnings of words (`Aug` and `August`), and the shapes of
//! neighbouring words (`Aa 99, 9999`). A feature that many seeds have says little, and counts less. All sums are whole numbers,
//! so that the ranks are the same on every machine.

use std::collections::{BTreeSet, HashMap};

/// What the seeds of one leaf look like, computed once.
pub(crate) struct ShotChooser {
    seeds: Vec<BTreeSet<String>>,
    /// How many seeds have a feature.
    frequency: HashMap<String, u64>,
}

impl ShotChooser {
    /// From the questions of the seeds, with their contexts.
    pub(crate) fn new<'a>(questions: impl Iterator<Item = &'a str>) -> Self {
        let seeds: Vec<BTreeSet<String>> = questions.map(features).collect();
        let mut frequency = HashMap::new();
        for feature in seeds.iter().flatten() {
            *frequency.entry(feature.clone()).or_default() += 1;
        }
        Self { seeds, frequency }
    }

    /// The seeds for one try at a question, the most similar last, directly before the question.
    ///
    /// The first try gets the `count` most similar ones. A further try keeps the most similar and takes the next ones in place
    /// of the others, from the first again when there are no more.
    pub(crate) fn choose(&self, question: &str, count: usize, attempt: usize) -> Vec<usize> {
        let ranked = self.ranked(question);
        let mut chosen = ranked;
        if attempt > 0 && chosen.len() > count && count > 1 {
            let steps = attempt * (count - 1) % (chosen.len() - 1);
            chosen[1..].rotate_left(steps);
        }
        chosen.truncate(count);
        chosen.reverse();
        chosen
    }

    fn ranked(&self, question: &str) -> Vec<usize> {
        let asked = features(question);
        let mut order: Vec<(u64, usize)> =
            self.seeds.iter().enumerate().map(|(number, seed)| (self.similarity(&asked, seed), number)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// Twice the weight of what both have over the weight of what each has, in parts of a million.
    fn similarity(&self, asked: &BTreeSet<String>, seed: &BTreeSet<String>) -> u64 {
        let weight =
            |features: &mut dyn Iterator<Item = &String>| -> u64 { features.map(|name| self.weight(name)).sum() };
        let both = weight(&mut asked.intersection(seed));
        let all = weight(&mut asked.iter()) + weight(&mut seed.iter());
        (2_000_000 * both).checked_div(all).unwrap_or(0)
    }

    /// A feature that no seed has tells the seeds apart no better than one that all have.
    fn weight(&self, feature: &str) -> u64 {
        const SCALE: u64 = 5040;
        let seeds = self.seeds.len().max(1) as u64;
        SCALE / self.frequency.get(feature).copied().unwrap_or(seeds).max(1)
    }
}

/// Words in lower case, their first three letters, and pairs of neighbouring shapes.
fn features(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut features = BTreeSet::new();
    for word in &words {
        let letters: String =
            word.chars().filter(|letter| letter.is_alphabetic()).flat_map(char::to_lowercase).collect();
        if !letters.is_empty() {
            features.insert(format!("start {}", letters.chars().take(3).collect::<String>()));
            features.insert(format!("word {letters}"));
        }
    }
    let shapes: Vec<String> =
        std::iter::once("^".to_owned()).chain(words.iter().map(|word| shape(word))).chain(["$".to_owned()]).collect();
    features.extend(shapes.windows(2).map(|pair| format!("shape {} {}", pair[0], pair[1])));
    features
}

/// `Aug` is `Aaa`, `August` is `Aaaa`, `30,` is `99,`: letters are counted to three and one more, digits to four and one more.
fn shape(word: &str) -> String {
    let mut shape = String::new();
    let (mut last, mut run) = ('\0', 0);
    for letter in word.chars() {
        let class = match letter {
            letter if letter.is_numeric() => '9',
            letter if letter.is_uppercase() => 'A',
            letter if letter.is_alphabetic() => 'a',
            other => other,
        };
        run = if class == last { run + 1 } else { 1 };
        last = class;
        if run <= if class == '9' { 5 } else { 3 } {
            shape.push(class);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [&str; 6] = [
        "Write this date: March 5, 2009",
        "Write this date: 21 November 1987",
        "Write this date: Aug 30, 1994",
        "Write this date: the 2nd of July 2012",
        "Write this date: October 14, 2001",
        "Write this date: 9 Jan 1982",
    ];

    #[test]
    fn seeds_of_the_same_form_stand_next_to_the_question() {
        let chooser = ShotChooser::new(SEEDS.into_iter());
        let nearest = |question: &str| chooser.choose(question, 1, 0)[0];
        for (question, expected) in [
            ("Write this date: the 23rd of June 2003", 3),
            ("Write this date: 14 December 1999", 1),
            ("Write this date: Feb 21, 1990", 2),
            ("Write this date: 7 Feb 1990", 5),
            ("Write this date: March 9, 1990", 0),
        ] {
            assert_eq!(nearest(question), expected, "{question}");
        }
    }

    #[test]
    fn further_tries_show_other_seeds() {
        let chooser = ShotChooser::new(SEEDS.into_iter());
        let question = "Write this date: March 9, 1990";
        let (first, second) = (chooser.choose(question, 3, 0), chooser.choose(question, 3, 1));
        assert_eq!((first.len(), first[2]), (3, 0));
        assert_eq!(second[2], 0, "the nearest stays");
        assert!(second[..2].iter().all(|number| !first.contains(number)));
        assert_eq!(chooser.choose(question, 9, 1).len(), 6);
        assert_eq!(chooser.choose(question, 0, 1), Vec::<usize>::new());
        assert_eq!(ShotChooser::new(std::iter::empty()).choose("x", 4, 2), Vec::<usize>::new());
    }
}
