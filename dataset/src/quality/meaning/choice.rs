//! The rows that stand best for all.
//!
//! Of a leaf's rows a quota is chosen so that the sum over all rows of the similarity to the chosen row most like them is large
//! (facility location). Taking the row that adds most, again and again, reaches at least 1 - 1/e of the best sum (Nemhauser, Wolsey
//! and Fisher, 1978). What a row adds only shrinks as others are chosen, so that a row whose old figure is below another's new one
//! need not be computed again (Minoux, 1978): the choice is the same, bit by bit, since each term and the order of the additions
//! are.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use rayon::prelude::*;

use super::vectors::Vectors;
use crate::row::{Row, Verdict};

/// What a row would add, as it was when `chosen` rows were chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gain {
    adds: f64,
    row: usize,
    chosen: usize,
}

impl Eq for Gain {}

impl PartialOrd for Gain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Gain {
    /// The greater gain first, of equal ones the earlier row.
    fn cmp(&self, other: &Self) -> Ordering {
        self.adds.total_cmp(&other.adds).then_with(|| other.row.cmp(&self.row))
    }
}

/// How like a row is to the chosen row most like it; rows that are opposite are not like each other at all.
fn similarity(vectors: &Vectors, row: usize, other: usize) -> f64 {
    f64::from(vectors.cosine(row, vectors, other).max(0.0))
}

/// What a row adds to the sum, given how well each row is stood for.
fn gain(vectors: &Vectors, row: usize, best: &[f64]) -> f64 {
    best.iter().enumerate().map(|(other, best)| (similarity(vectors, row, other) - best).max(0.0)).sum()
}

fn take(vectors: &Vectors, row: usize, best: &mut [f64]) {
    for (other, best) in best.iter_mut().enumerate() {
        *best = best.max(similarity(vectors, row, other));
    }
}

/// Chooses at most `quota` rows; their numbers in the order of the choice, the one that stands for most first. Time grows with the
/// square of the rows.
pub fn choose(vectors: &Vectors, quota: usize) -> Vec<usize> {
    let mut best = vec![0.0; vectors.len()];
    let mut chosen = Vec::new();
    let mut waiting: BinaryHeap<Gain> = (0..vectors.len())
        .into_par_iter()
        .map(|row| Gain { adds: gain(vectors, row, &best), row, chosen: 0 })
        .collect::<Vec<_>>()
        .into();
    while chosen.len() < quota
        && let Some(first) = waiting.pop()
    {
        if first.chosen == chosen.len() {
            take(vectors, first.row, &mut best);
            chosen.push(first.row);
        } else {
            waiting.push(Gain { adds: gain(vectors, first.row, &best), row: first.row, chosen: chosen.len() });
        }
    }
    chosen
}

/// How many rows a leaf may keep; `None` for all.
pub type Quota<'a> = &'a dyn Fn(&str) -> Option<usize>;

/// Of each leaf with more accepted rows than its quota, keeps those that stand best for all and rejects the others. `vectors` makes
/// a vector of each text ([`Vectors::of_words`] needs no model).
///
/// # Errors
/// What `vectors` returns.
pub fn reject_over_quota<E>(
    rows: &mut [Row],
    quota: Quota<'_>,
    mut vectors: impl FnMut(&[String]) -> Result<Vectors, E>,
) -> Result<(), E> {
    let mut leaves: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.verdict == Verdict::Accepted) {
        leaves.entry(row.leaf.clone()).or_default().push(index);
    }
    for (leaf, of_leaf) in leaves {
        let Some(quota) = quota(&leaf).filter(|quota| *quota < of_leaf.len()) else { continue };
        let texts: Vec<String> = of_leaf.iter().map(|&index| text(&rows[index])).collect();
        let mut kept = vec![false; of_leaf.len()];
        for row in choose(&vectors(&texts)?, quota) {
            kept[row] = true;
        }
        let reason = format!("over the quota: {quota} of {} rows stand for the leaf", of_leaf.len());
        for (&index, _) in of_leaf.iter().zip(kept).filter(|(_, kept)| !kept) {
            rows[index].verdict = Verdict::Rejected;
            rows[index].reason.clone_from(&reason);
        }
    }
    Ok(())
}

fn text(row: &Row) -> String {
    row.turns.iter().map(|turn| turn.content.as_str()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::row::Turn;

    /// Every gain anew at each step.
    fn plain(vectors: &Vectors, quota: usize) -> Vec<usize> {
        let mut best = vec![0.0; vectors.len()];
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < quota.min(vectors.len()) {
            let open = (0..vectors.len()).filter(|row| !chosen.contains(row));
            let gains = open.map(|row| Gain { adds: gain(vectors, row, &best), row, chosen: 0 });
            let Some(most) = gains.max() else { break };
            take(vectors, most.row, &mut best);
            chosen.push(most.row);
        }
        chosen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lazy_is_plain(values in proptest::collection::vec(proptest::collection::vec(-3_i8..4, 5), 0..40), quota in 0_usize..45) {
            let vectors: Vec<Vec<f32>> = values.iter().map(|v| v.iter().map(|&value| f32::from(value)).collect()).collect();
            let vectors = Vectors::dense(&vectors).unwrap();
            prop_assert_eq!(choose(&vectors, quota), plain(&vectors, quota));
        }
    }

    #[test]
    fn the_choice_covers_every_topic() {
        let topics = ["frog pond water lily", "engine oil wheel brake", "bread flour oven yeast"];
        let texts: Vec<String> = (0..30).map(|i| format!("{} number{}", topics[i % 3], i / 3)).collect();
        let vectors = Vectors::of_words(&texts);
        let mut covered: Vec<usize> = choose(&vectors, 3).iter().map(|row| row % 3).collect();
        covered.sort_unstable();
        assert_eq!(covered, [0, 1, 2]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| choose(&vectors, 9)), choose(&vectors, 9));
    }

    #[test]
    fn leaves_with_too_many_rows_are_thinned() {
        let row = |leaf: &str, text: &str, verdict| Row {
            leaf: leaf.into(),
            turns: vec![Turn::new("user", text)],
            verdict,
            ..Row::default()
        };
        let mut rows = [
            row("a", "frog pond", Verdict::Accepted),
            row("a", "frog pond", Verdict::Accepted),
            row("a", "oven bread", Verdict::Accepted),
            row("a", "nothing", Verdict::Rejected),
            row("b", "frog pond", Verdict::Accepted),
        ];
        let words = |texts: &[String]| Ok::<_, Infallible>(Vectors::of_words(texts));
        reject_over_quota(&mut rows, &|_| Some(2), words).unwrap();
        let kept: Vec<bool> = rows.iter().map(|row| row.verdict == Verdict::Accepted).collect();
        assert_eq!(kept, [true, false, true, false, true]);
        assert_eq!(rows[1].reason, "over the quota: 2 of 3 rows stand for the leaf");
    }
}
