//! How far judges agree beyond chance.

use serde::{Deserialize, Serialize};

/// How bad it is when one judge says i and the other j.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// All disagreement is alike: for names such as "A", "B" and "tie".
    Equal,
    /// By the distance of the two: for levels in order.
    Linear,
    /// By its square.
    Quadratic,
}

/// Cohen's kappa and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kappa {
    /// 1 for agreement everywhere, 0 for as much as chance gives, below 0 for less.
    pub kappa: f64,
    /// Its standard error for many items.
    pub standard_error: f64,
    /// Share of items on which both say the same.
    pub same: f64,
    /// Items.
    pub items: usize,
}

/// The agreement of two judges on the same items, each answer one of `categories`, numbered from 0; None without items or where
/// both give one and the same answer to all of them.
///
/// With agreement weights w (1 on the diagonal), kappa = (o - e) / (1 - e), o the weighted share of the pairs and e
/// what the two judges' own habits give by chance. Cohen, Psychological Bulletin 70 (1968) 213; the error after Fleiss, Cohen and
/// Everitt, Psychological Bulletin 72 (1969) 323.
///
/// # Panics
/// If an answer is not below `categories`.
pub fn cohen_kappa(first: &[usize], second: &[usize], categories: usize, weights: Weights) -> Option<Kappa> {
    let items = first.len().min(second.len());
    let mut shares = vec![vec![0.0; categories]; categories];
    for (&a, &b) in first.iter().zip(second) {
        shares[a][b] += 1.0 / items as f64;
    }
    let rows: Vec<f64> = shares.iter().map(|row| row.iter().sum()).collect();
    let columns: Vec<f64> = (0..categories).map(|column| shares.iter().map(|row| row[column]).sum()).collect();
    let weight = |a: usize, b: usize| {
        let distance = a.abs_diff(b) as f64 / (categories.max(2) - 1) as f64;
        match weights {
            Weights::Equal => f64::from(u8::from(a == b)),
            Weights::Linear => 1.0 - distance,
            Weights::Quadratic => 1.0 - distance * distance,
        }
    };
    let cells = || (0..categories).flat_map(|a| (0..categories).map(move |b| (a, b)));
    let observed: f64 = cells().map(|(a, b)| weight(a, b) * shares[a][b]).sum();
    let expected: f64 = cells().map(|(a, b)| weight(a, b) * rows[a] * columns[b]).sum();
    if items == 0 || 1.0 - expected < 1e-12 {
        return None;
    }
    let kappa = (observed - expected) / (1.0 - expected);
    let of_row: Vec<f64> = (0..categories).map(|a| (0..categories).map(|b| weight(a, b) * columns[b]).sum()).collect();
    let of_column: Vec<f64> = (0..categories).map(|b| (0..categories).map(|a| weight(a, b) * rows[a]).sum()).collect();
    let spread: f64 =
        cells().map(|(a, b)| shares[a][b] * (weight(a, b) - (of_row[a] + of_column[b]) * (1.0 - kappa)).powi(2)).sum();
    let variance = (spread - (kappa - expected * (1.0 - kappa)).powi(2)) / (items as f64 * (1.0 - expected).powi(2));
    let same = (0..categories).map(|a| shares[a][a]).sum();
    Some(Kappa { kappa, standard_error: variance.max(0.0).sqrt(), same, items })
}

/// What the distance of two ratings means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Names: two ratings are the same or not.
    Nominal,
    /// An order: what counts is how many ratings lie between two.
    Ordinal,
    /// A scale: their difference, squared.
    Interval,
}

/// Krippendorff's alpha over `units`, each the ratings that it was given by any number of judges: 1 for agreement everywhere, 0 for
/// chance. What a judge has not rated is left out of its unit, and units with fewer than two ratings say nothing. None where no
/// two ratings differ, or where there is nothing to compare.
///
/// 1 - o / e: the mean distance of ratings within a unit over that of any two. Krippendorff, Content Analysis (2004),
/// chapter 11.
pub fn krippendorff_alpha(units: &[Vec<f64>], level: Level) -> Option<f64> {
    let paired: Vec<&Vec<f64>> = units.iter().filter(|unit| unit.len() > 1).collect();
    let mut values: Vec<f64> = paired.iter().flat_map(|unit| unit.iter().copied()).collect();
    let total = values.len() as f64;
    values.sort_unstable_by(f64::total_cmp);
    let counts: Vec<f64> = values.chunk_by(|a, b| a >= b).map(|same| same.len() as f64).collect();
    values.dedup();
    let place = |value: f64| values.partition_point(|&known| known < value);
    let distance = |a: usize, b: usize| match level {
        Level::Nominal => f64::from(u8::from(a != b)),
        Level::Interval => (values[a] - values[b]).powi(2),
        Level::Ordinal => {
            let (low, high) = (a.min(b), a.max(b));
            let between: f64 = counts[low..=high].iter().sum();
            (between - f64::midpoint(counts[low], counts[high])).powi(2)
        }
    };
    let mut observed = 0.0;
    for unit in paired {
        let mut within = 0.0;
        for (index, &a) in unit.iter().enumerate() {
            for &b in &unit[index + 1..] {
                within += 2.0 * distance(place(a), place(b));
            }
        }
        observed += within / (unit.len() - 1) as f64;
    }
    let mut expected = 0.0;
    for a in 0..values.len() {
        for b in a + 1..values.len() {
            expected += 2.0 * counts[a] * counts[b] * distance(a, b);
        }
    }
    (expected > 0.0).then(|| 1.0 - (total - 1.0) * observed / expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_everywhere_and_nowhere() {
        let kappa = cohen_kappa(&[0, 1, 2, 1], &[0, 1, 2, 1], 3, Weights::Equal).unwrap();
        assert!((kappa.kappa - 1.0).abs() < 1e-12 && kappa.standard_error < 1e-7 && (kappa.same - 1.0).abs() < 1e-12);
        assert!(cohen_kappa(&[0, 1], &[1, 0], 2, Weights::Equal).unwrap().kappa < -0.99);
        // One who always says the same agrees by chance alone; two of them cannot be measured.
        assert!(cohen_kappa(&[0, 0, 0, 0], &[0, 1, 0, 1], 2, Weights::Equal).unwrap().kappa.abs() < 1e-12);
        assert_eq!(cohen_kappa(&[1, 1], &[1, 1], 2, Weights::Equal), None);
        assert_eq!(cohen_kappa(&[], &[], 2, Weights::Linear), None);
    }

    #[test]
    fn ratings_that_stand_alone_say_nothing() {
        let units = [vec![1.0, 1.0], vec![2.0, 2.0], vec![5.0], vec![]];
        assert!((krippendorff_alpha(&units, Level::Interval).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(krippendorff_alpha(&[vec![1.0, 1.0], vec![1.0]], Level::Nominal), None);
        assert_eq!(krippendorff_alpha(&[], Level::Nominal), None);
    }
}
