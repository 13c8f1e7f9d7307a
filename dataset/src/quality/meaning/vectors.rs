//! A vector for each text.

use std::collections::{BTreeMap, HashMap};

use crate::quality::words::{hash_of, units};

/// Additions that run side by side in a product: they are added up in one order at the end.
const LANES: usize = 16;

/// Vectors of length 1, one for each text; the product of two is their cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// All of one width, one after the other.
    Dense { width: usize, values: Vec<f32> },
    /// Features in order with their weights.
    Sparse(Vec<Vec<(u32, f32)>>),
}

impl Vectors {
    /// Vectors that a model made, brought to length 1; one of zeros stays, and is like nothing.
    ///
    /// # Errors
    /// When they are not all of one width, or a value is not finite.
    pub fn dense(vectors: &[Vec<f32>]) -> Result<Self, String> {
        let width = vectors.first().map_or(0, Vec::len);
        let mut values = Vec::with_capacity(width * vectors.len());
        for (place, vector) in vectors.iter().enumerate() {
            if vector.len() != width {
                return Err(format!("vector {} has {} values, the first has {width}", place + 1, vector.len()));
            }
            if vector.iter().any(|value| !value.is_finite()) {
                return Err(format!("vector {} holds a value that is not a number", place + 1));
            }
            let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
            values.extend(vector.iter().map(|value| (f64::from(*value) * scale) as f32));
        }
        Ok(Self { form: Form::Dense { width, values } })
    }

    /// Weights of the words of each text (Salton and Buckley, 1988): `1 + ln(count)` times `ln((1 + n) / (1 + d)) + 1` for a word
    /// that stands in `d` of `n` texts. Words are known by a hash of 32 bits.
    pub fn of_words<T: AsRef<str>>(texts: &[T]) -> Self {
        let counted: Vec<BTreeMap<u32, u32>> = texts
            .iter()
            .map(|text| {
                let mut counts = BTreeMap::new();
                for word in units(text.as_ref()) {
                    *counts.entry((hash_of(word.bytes()) >> 32) as u32).or_default() += 1;
                }
                counts
            })
            .collect();
        let mut found_in: HashMap<u32, u32> = HashMap::new();
        for word in counted.iter().flat_map(BTreeMap::keys) {
            *found_in.entry(*word).or_default() += 1;
        }
        let texts = 1.0 + counted.len() as f64;
        let weighted = |counts: BTreeMap<u32, u32>| {
            let weights: Vec<(u32, f64)> = counts
                .into_iter()
                .map(|(word, count)| {
                    let rare = (texts / (1.0 + f64::from(found_in[&word]))).ln() + 1.0;
                    (word, (1.0 + f64::from(count).ln()) * rare)
                })
                .collect();
            let length = weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
            weights.into_iter().map(|(word, weight)| (word, (weight / length) as f32)).collect()
        };
        Self { form: Form::Sparse(counted.into_iter().map(weighted).collect()) }
    }

    /// Those of the given numbers, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let form = match &self.form {
            Form::Dense { width, values } => {
                let values = rows.iter().flat_map(|row| &values[row * width..][..*width]).copied().collect();
                Form::Dense { width: *width, values }
            }
            Form::Sparse(vectors) => Form::Sparse(rows.iter().map(|&row| vectors[row].clone()).collect()),
        };
        Self { form }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Dense { width, values } => values.len().checked_div(*width).unwrap_or(0),
            Form::Sparse(vectors) => vectors.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cosine of one of these and one of `other`, from -1 to 1; of vectors of different kinds 0.
    pub fn cosine(&self, index: usize, other: &Self, other_index: usize) -> f32 {
        match (&self.form, &other.form) {
            (Form::Dense { width, values }, Form::Dense { width: same, values: others }) if width == same => {
                dot(&values[index * width..][..*width], &others[other_index * width..][..*width])
            }
            (Form::Sparse(vectors), Form::Sparse(others)) => sparse_dot(&vectors[index], &others[other_index]),
            _ => 0.0,
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn sparse_dot(a: &[(u32, f32)], b: &[(u32, f32)]) -> f32 {
    let (mut left, mut right, mut sum) = (0, 0, 0.0);
    while left < a.len() && right < b.len() {
        match a[left].0.cmp(&b[right].0) {
            std::cmp::Ordering::Less => left += 1,
            std::cmp::Ordering::Greater => right += 1,
            std::cmp::Ordering::Equal => {
                sum += a[left].1 * b[right].1;
                left += 1;
                right += 1;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_those_of_the_definition() {
        let vectors = Vectors::dense(&[vec![3.0, 4.0], vec![4.0, 3.0], vec![0.0, 0.0]]).unwrap();
        assert!((vectors.cosine(0, &vectors, 1) - 0.96).abs() < 1e-6);
        assert!((vectors.cosine(1, &vectors, 1) - 1.0).abs() < 1e-6);
        assert!(vectors.cosine(0, &vectors, 2).abs() < 1e-9);
        let long: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let reversed: Vec<f32> = long.iter().rev().copied().collect();
        let vectors = Vectors::dense(&[long.clone(), reversed.clone()]).unwrap();
        let plain: f32 = long.iter().zip(&reversed).map(|(a, b)| a * b).sum();
        let length: f32 = long.iter().map(|a| a * a).sum();
        assert!((vectors.cosine(0, &vectors, 1) - plain / length).abs() < 1e-5);
        assert!(Vectors::dense(&[vec![1.0], vec![1.0, 2.0]]).unwrap_err().contains("vector 2 has 2 values"));
        assert!(Vectors::dense(&[vec![f32::NAN]]).unwrap_err().contains("not a number"));
        assert!(Vectors::dense(&[]).unwrap().is_empty());
    }

    #[test]
    fn rare_words_weigh_more() {
        let vectors = Vectors::of_words(&["the frog sat", "The frog ran!", "the cat sat", "", "the frog sat"]);
        assert!((vectors.cosine(0, &vectors, 4) - 1.0).abs() < 1e-6);
        assert!(vectors.cosine(0, &vectors, 1) > 0.3 && vectors.cosine(0, &vectors, 1) < 0.9);
        // `frog` stands in three texts, `sat` in three: `cat` alone parts the third.
        assert!((vectors.cosine(0, &vectors, 2) - vectors.cosine(2, &vectors, 0)).abs() < 1e-9);
        assert!(vectors.cosine(0, &vectors, 3).abs() < 1e-9);
        // By hand: two texts, `a b` and `a c`; the weights are 1 for `a` and ln(3/2) + 1 for the others.
        let two = Vectors::of_words(&["a b", "a c"]);
        let rare = 1.5_f32.ln() + 1.0;
        assert!((two.cosine(0, &two, 1) - 1.0 / (1.0 + rare * rare)).abs() < 1e-6);
    }
}
