//! Many claims at once.

/// Holm's adjusted p-values, in the order given: a claim holds at a family-wise level of alpha when its adjusted value is below.
///
/// Sorted upwards, the i-th of m p-values is multiplied by m - i + 1, and no value may be below the one before it.
/// Holm, Scandinavian Journal of Statistics 6 (1979) 65.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut least: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        least = least.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[index] = least;
    }
    adjusted
}

/// The adjusted p-values of Benjamini and Hochberg, in the order given: of the claims whose adjusted value is below q, a share of
/// q at most is false on average. For screens, where [`holm`] is for claims.
///
/// Sorted upwards, the i-th of m p-values is multiplied by m / i, and no value may be above the one after it.
/// Benjamini and Hochberg, Journal of the Royal Statistical Society B 57 (1995) 289.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut most: f64 = 1.0;
    for (rank, &index) in order.iter().enumerate().rev() {
        most = most.min(p_values[index] * p_values.len() as f64 / (rank + 1) as f64);
        adjusted[index] = most;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_chance_alone() {
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
        assert_eq!(benjamini_hochberg(&[0.7, 0.6]), [0.7, 0.7]);
        assert!(holm(&[]).is_empty() && benjamini_hochberg(&[]).is_empty());
    }
}
