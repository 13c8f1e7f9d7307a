//! What an importance matrix says about each tensor.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Importance, ImportanceMatrix};

/// A mean square up to here counts as no activity, as in llama-imatrix.
const INACTIVE: f64 = 1e-5;

/// How the mean squares of the columns of a tensor are spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorStatistics {
    /// GGUF name.
    pub tensor: String,
    /// Columns, of all matrices that saw a row.
    pub columns: usize,
    /// Sum of the mean squares.
    pub sum: f64,
    /// Least of them.
    pub min: f64,
    /// Largest of them.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// Part of the columns with more than 1e-5.
    pub active: f64,
    /// Entropy of the columns' parts of the sum, in bits; `log2(columns)` where all are equal.
    pub entropy: f64,
    /// The entropy over its largest value: near 1 an importance matrix changes little.
    pub evenness: f64,
    /// Part of the sum that the hundredth of the columns with the most holds.
    pub top_hundredth: f64,
    /// Part of the columns more than one deviation above the mean.
    pub outliers: f64,
    /// Cosine with the sums of the same tensor in the layer before.
    pub cosine_to_layer_before: Option<f64>,
    /// Part of the matrices (experts) that no row reached.
    pub unseen: f64,
}

pub(super) fn of(matrix: &ImportanceMatrix) -> Vec<TensorStatistics> {
    matrix.iter().map(|(name, importance)| one(name, importance, &matrix.entries)).collect()
}

fn one(name: &str, importance: &Importance, all: &BTreeMap<String, Importance>) -> TensorStatistics {
    let columns = importance.sums.len() / importance.counts.len();
    let matrices = importance.sums.chunks_exact(columns).zip(&importance.counts);
    let mut means: Vec<f64> = matrices
        .filter(|(_, count)| **count > 0)
        .flat_map(|(sums, &count)| sums.iter().map(move |sum| f64::from(*sum) / count as f64))
        .collect();
    means.sort_by(|left, right| right.total_cmp(left));
    let count = (means.len() as f64).max(1.0);
    let sum: f64 = means.iter().sum();
    let mean = sum / count;
    let deviation = (means.iter().map(|value| value * value).sum::<f64>() / count - mean * mean).max(0.0).sqrt();
    let share = |matching: &dyn Fn(f64) -> bool| means.iter().filter(|value| matching(**value)).count() as f64 / count;
    let parts = means.iter().map(|value| value / sum).filter(|part| *part > 0.0);
    let entropy = -parts.map(|part| part * part.log2()).sum::<f64>();
    let top = means.len().div_ceil(100);
    TensorStatistics {
        tensor: name.to_owned(),
        columns: means.len(),
        sum,
        min: means.last().copied().unwrap_or(0.0),
        max: means.first().copied().unwrap_or(0.0),
        mean,
        deviation,
        active: share(&|value| value > INACTIVE),
        entropy: entropy.max(0.0),
        evenness: if count > 1.0 { entropy.max(0.0) / count.log2() } else { 1.0 },
        top_hundredth: if sum > 0.0 { means[..top].iter().sum::<f64>() / sum } else { 0.0 },
        outliers: share(&|value| deviation > 0.0 && value > mean + deviation),
        cosine_to_layer_before: before(name).and_then(|name| all.get(&name)).and_then(|one| cosine(importance, one)),
        unseen: importance.unseen(),
    }
}

/// The name of the same tensor one layer before.
fn before(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer = layer.parse::<u32>().ok()?.checked_sub(1)?;
    Some(format!("blk.{layer}.{rest}"))
}

fn cosine(left: &Importance, right: &Importance) -> Option<f64> {
    if left.sums.len() != right.sums.len() {
        return None;
    }
    let dot = |left: &Importance, right: &Importance| -> f64 {
        left.sums.iter().zip(&right.sums).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
    };
    let length = (dot(left, left) * dot(right, right)).sqrt();
    (length > 0.0).then(|| dot(left, right) / length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let mut matrix = ImportanceMatrix::new(Vec::new(), 1, 512);
        matrix.insert("blk.0.ffn_up.weight", Importance::new(vec![2.0, 2.0, 4.0, 0.0], vec![2]).unwrap());
        matrix.insert("blk.1.ffn_up.weight", Importance::new(vec![1.0, 0.0, 0.0, 0.0], vec![1]).unwrap());
        let [first, second] = matrix.statistics().try_into().unwrap();
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
        near(first.sum, 4.0);
        near(first.mean, 1.0);
        near(first.deviation, 0.5_f64.sqrt());
        near(first.active, 0.75);
        // Parts 1/4, 1/4, 1/2: half a bit, half a bit, half a bit.
        near(first.entropy, 1.5);
        near(first.evenness, 0.75);
        near(first.top_hundredth, 0.5);
        near(first.outliers, 0.25);
        assert_eq!(first.cosine_to_layer_before, None);
        near(second.cosine_to_layer_before.unwrap(), 2.0 / 24.0_f64.sqrt());
        near(second.entropy, 0.0);
    }

    #[test]
    fn a_tensor_without_rows_has_no_spread() {
        let mut matrix = ImportanceMatrix::new(Vec::new(), 1, 512);
        matrix.insert("x", Importance::new(vec![0.0, 0.0], vec![0]).unwrap());
        let found = matrix.statistics().remove(0);
        assert_eq!((found.columns, found.unseen.to_bits()), (0, 1.0_f64.to_bits()));
        assert!([found.sum, found.entropy, found.top_hundredth, found.outliers].iter().all(|value| *value == 0.0));
    }
}
