//! Near-duplicates by vectors: what says the same in other words.

use rayon::prelude::*;

use super::vectors::Vectors;
use crate::row::{Row, Verdict};

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
    fn or(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.cosine > self.cosine || (other.cosine >= self.cosine && other.index < self.index) => {
                other
            }
            _ => self,
        }
    }
}

/// Of each vector the earlier one that it is a twin of: the one most like it among those that are no twins themselves, where their
/// cosine reaches `threshold`. Every pair is compared, in blocks and in parallel: exact, and fit for some 100,000 rows.
pub fn twins(vectors: &Vectors, threshold: f32) -> Vec<Option<Near>> {
    let mut found: Vec<Option<Near>> = Vec::with_capacity(vectors.len());
    let mut kept: Vec<usize> = Vec::new();
    for start in (0..vectors.len()).step_by(AT_ONCE) {
        let end = (start + AT_ONCE).min(vectors.len());
        let before: Vec<Option<Near>> =
            (start..end).into_par_iter().map(|row| most_like(vectors, row, vectors, &kept, threshold)).collect();
        let first = kept.len();
        for (row, before) in (start..end).zip(before) {
            let here = most_like(vectors, row, vectors, &kept[first..], threshold);
            let twin = here.map(|here| here.or(before)).or(before);
            if twin.is_none() {
                kept.push(row);
            }
            found.push(twin);
        }
    }
    found
}

/// Of each vector the one of `others` that is most like it, where their cosine reaches `threshold`.
pub fn nearest(vectors: &Vectors, others: &Vectors, threshold: f32) -> Vec<Option<Near>> {
    let all: Vec<usize> = (0..others.len()).collect();
    (0..vectors.len()).into_par_iter().map(|row| most_like(vectors, row, others, &all, threshold)).collect()
}

fn most_like(vectors: &Vectors, row: usize, others: &Vectors, among: &[usize], threshold: f32) -> Option<Near> {
    among.iter().fold(None, |best, &index| {
        let cosine = vectors.cosine(row, others, index);
        if cosine >= threshold { Some(Near { index, cosine }.or(best)) } else { best }
    })
}

/// Rejects every accepted row that says what an earlier accepted one says; `vectors` are those of the accepted rows, in order.
pub fn reject_near_by_vectors(rows: &mut [Row], vectors: &Vectors, threshold: f32) {
    let accepted: Vec<usize> = (0..rows.len()).filter(|&index| rows[index].verdict == Verdict::Accepted).collect();
    for (&index, twin) in accepted.iter().zip(twins(vectors, threshold)) {
        let Some(twin) = twin else { continue };
        let kept = rows[accepted[twin.index]].id.clone();
        rows[index].verdict = Verdict::Rejected;
        // Cut, not rounded: what is not the same never reads as 1.00.
        rows[index].reason = format!("same meaning: {:.2} like {kept}", (twin.cosine * 100.0).floor() / 100.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::words::mixed;
    use crate::row::Turn;

    fn vectors(count: usize) -> Vectors {
        let value = |row: usize, place: usize| (mixed((row * 31 + place) as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let made: Vec<Vec<f32>> = (0..count)
            .map(|row| {
                // Two rows of three are an earlier one with some noise.
                let base = if row % 3 == 0 { row } else { mixed(row as u64) as usize % row };
                (0..24).map(|place| value(base - base % 3, place) + 0.3 * value(row + 100_000, place)).collect()
            })
            .collect();
        Vectors::dense(&made).unwrap()
    }

    #[test]
    fn blocks_are_as_one_row_after_the_other() {
        let vectors = vectors(1300);
        let mut expected: Vec<Option<Near>> = Vec::new();
        for row in 0..vectors.len() {
            let kept: Vec<usize> = (0..row).filter(|&earlier| expected[earlier].is_none()).collect();
            expected.push(most_like(&vectors, row, &vectors, &kept, 0.9));
        }
        let duplicates = expected.iter().flatten().count();
        assert!((300..1200).contains(&duplicates), "{duplicates}");
        assert_eq!(twins(&vectors, 0.9), expected);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| twins(&vectors, 0.9)), expected);
    }

    #[test]
    fn the_nearest_of_others_is_found() {
        let rows = Vectors::of_words(&["how deep is the pond", "who ate the cake"]);
        let same = Vectors::of_words(&["who ate the cake", "how deep is the pond"]);
        let found = nearest(&rows, &same, 0.9);
        assert_eq!(found.iter().map(|near| near.map(|near| near.index)).collect::<Vec<_>>(), [Some(1), Some(0)]);
    }

    #[test]
    fn rows_keep_the_reason() {
        let row = |id: &str, text: &str, verdict| Row {
            id: id.into(),
            turns: vec![Turn::new("user", text)],
            verdict,
            ..Row::default()
        };
        let mut rows =
            [row("a", "x", Verdict::Rejected), row("b", "x", Verdict::Accepted), row("c", "x", Verdict::Accepted)];
        let vectors = Vectors::dense(&[vec![1.0, 0.0], vec![1.0, 0.1]]).unwrap();
        reject_near_by_vectors(&mut rows, &vectors, 0.95);
        assert_eq!((rows[1].verdict, rows[2].reason.as_str()), (Verdict::Accepted, "same meaning: 0.99 like b"));
    }
}
