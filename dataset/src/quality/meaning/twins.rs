//! Near-duplicates by vectors: what says the same in other words.

use rayon::prelude::*;
use serde::Serialize;

use super::rows::RowVectors;
use super::vectors::Vectors;

/// Rows that are compared with all earlier ones at the same time.
const AT_ONCE: usize = 512;

/// A vector that another one is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its number.
    pub index: usize,
    /// The cosine.
    pub cosine: f32,
}

impl Near {
    /// The one that is more like; of equal ones the earlier.
    pub(crate) fn or(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.cosine > self.cosine || (other.cosine >= self.cosine && other.index < self.index) => {
                other
            }
            _ => self,
        }
    }
}

/// What was kept so far, by its vectors. Every pair is compared, in blocks and in parallel: exact, and fit for some 100,000 rows.
#[derive(Debug)]
pub struct Meanings {
    threshold: f32,
    /// What was kept of each block: the number of its first, and the vectors.
    blocks: Vec<(usize, RowVectors)>,
    ids: Vec<String>,
}

/// What says the same as an earlier one that was kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SameMeaning {
    /// Id of the earlier one.
    pub of: String,
    /// The cosine.
    pub cosine: f32,
}

impl SameMeaning {
    /// The reason of the rejection.
    pub fn reason(&self) -> String {
        format!("same meaning: {:.2} like {}", floor(self.cosine), self.of)
    }
}

/// A cosine with two digits, cut and not rounded: what is not the same never reads as 1.00, and what is always does, however its
/// products were rounded.
pub(crate) fn floor(cosine: f32) -> f32 {
    ((cosine + 1e-6) * 100.0).floor() / 100.0
}

impl Meanings {
    /// Nothing yet; from a cosine of `threshold` on two say the same.
    pub fn new(threshold: f32) -> Self {
        Self { threshold, blocks: Vec::new(), ids: Vec::new() }
    }

    /// Takes rows with their ids, in their order: of each the one that was kept before it and is most like it. What is like none is
    /// kept.
    pub fn add_all(&mut self, ids: &[&str], rows: &RowVectors) -> Vec<Option<SameMeaning>> {
        let mut found = Vec::with_capacity(ids.len());
        for start in (0..ids.len()).step_by(AT_ONCE) {
            let block = start..(start + AT_ONCE).min(ids.len());
            let before: Vec<Option<Near>> = block.clone().into_par_iter().map(|row| self.nearest(rows, row)).collect();
            let (first, mut kept) = (self.ids.len(), Vec::new());
            for (row, before) in block.zip(before) {
                let numbered = kept.iter().enumerate().map(|(place, &other)| (first + place, other));
                let here = most_like(numbered, self.threshold, |other| rows.cosine(row, rows, other));
                let near = here.map(|here| here.or(before)).or(before);
                if near.is_none() {
                    kept.push(row);
                    self.ids.push(ids[row].to_owned());
                }
                found.push(near);
            }
            self.blocks.push((first, rows.select(&kept)));
        }
        let same = |near: Near| SameMeaning { of: self.ids[near.index].clone(), cosine: near.cosine };
        found.into_iter().map(|near| near.map(same)).collect()
    }

    fn nearest(&self, rows: &RowVectors, row: usize) -> Option<Near> {
        let of_block = |(first, block): &(usize, RowVectors)| {
            let numbered = (0..block.len()).map(|place| (first + place, place));
            most_like(numbered, self.threshold, |other| rows.cosine(row, block, other))
        };
        self.blocks.iter().filter_map(of_block).reduce(|best, near| best.or(Some(near)))
    }
}

/// Of each vector the one of `others` that is most like it, where their cosine reaches `threshold`.
pub fn nearest(vectors: &Vectors, others: &Vectors, threshold: f32) -> Vec<Option<Near>> {
    let of = |row: usize| {
        let all = (0..others.len()).map(|index| (index, index));
        most_like(all, threshold, |other| vectors.cosine(row, others, other))
    };
    (0..vectors.len()).into_par_iter().map(of).collect()
}

/// Of others, each with its number, the one whose cosine is greatest.
fn most_like(
    among: impl Iterator<Item = (usize, usize)>,
    threshold: f32,
    cosine: impl Fn(usize) -> f32,
) -> Option<Near> {
    among.fold(None, |best, (index, other)| {
        let cosine = cosine(other);
        if cosine >= threshold { Some(Near { index, cosine }.or(best)) } else { best }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::near::Compared;
    use crate::quality::sample::Sample;
    use crate::quality::words::mixed;

    fn rows(count: usize) -> RowVectors {
        let value = |row: usize, place: usize| (mixed((row * 31 + place) as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let made: Vec<Vec<f32>> = (0..count)
            .map(|row| {
                // Two rows of three are an earlier one with some noise.
                let base = if row % 3 == 0 { row } else { mixed(row as u64) as usize % row };
                (0..24).map(|place| value(base - base % 3, place) + 0.3 * value(row + 100_000, place)).collect()
            })
            .collect();
        of_dense(&made)
    }

    /// Rows in one piece with these vectors.
    fn of_dense(vectors: &[Vec<f32>]) -> RowVectors {
        let rows = vec![Sample::default(); vectors.len()];
        RowVectors::new(&rows, Compared::Conversation, |_: &[String]| Vectors::dense(vectors)).unwrap()
    }

    /// Each row against every kept one before it.
    fn plain(rows: &RowVectors, threshold: f32) -> Vec<Option<SameMeaning>> {
        let mut found: Vec<Option<SameMeaning>> = Vec::new();
        for row in 0..rows.len() {
            let kept = (0..row).filter(|&earlier| found[earlier].is_none()).map(|row| (row, row));
            let near = most_like(kept, threshold, |other| rows.cosine(row, rows, other));
            found.push(near.map(|near| SameMeaning { of: near.index.to_string(), cosine: near.cosine }));
        }
        found
    }

    #[test]
    fn blocks_and_portions_are_as_one_row_after_the_other() {
        let all = rows(1300);
        let ids: Vec<String> = (0..all.len()).map(|row| row.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let expected = plain(&all, 0.9);
        let duplicates = expected.iter().flatten().count();
        assert!((300..1200).contains(&duplicates), "{duplicates}");
        let found = |portion: usize| {
            let mut known = Meanings::new(0.9);
            let rows: Vec<usize> = (0..all.len()).collect();
            let portions = rows.chunks(portion);
            portions
                .flat_map(|rows| known.add_all(&ids[rows[0]..][..rows.len()], &all.select(rows)))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(1300), expected);
        assert_eq!(found(700), expected);
        assert_eq!(found(37), expected);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| found(1300)), expected);
    }

    #[test]
    fn the_nearest_of_others_is_found() {
        let rows = Vectors::of_words(&["how deep is the pond", "who ate the cake"]);
        let same = Vectors::of_words(&["who ate the cake", "how deep is the pond"]);
        let found = nearest(&rows, &same, 0.9);
        assert_eq!(found.iter().map(|near| near.map(|near| near.index)).collect::<Vec<_>>(), [Some(1), Some(0)]);
    }

    #[test]
    fn the_reason_names_the_row_that_stays() {
        let rows = of_dense(&[vec![1.0, 0.0], vec![1.0, 0.1], vec![0.0, 1.0]]);
        let found = Meanings::new(0.95).add_all(&["b", "c", "d"], &rows);
        assert_eq!(found[1].as_ref().map(SameMeaning::reason).unwrap(), "same meaning: 0.99 like b");
        assert!(found[0].is_none() && found[2].is_none());
        assert_eq!([0.999_999_9, 0.999_9].map(|cosine| format!("{:.2}", floor(cosine))), ["1.00", "0.99"]);
    }
}
