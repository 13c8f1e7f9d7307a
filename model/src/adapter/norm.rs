//! How large a change is.

use super::LoraModule;

impl LoraModule {
    /// The Frobenius norm of `s B A`, in `f64` and without the product: the square of that of `B A` is the sum over all
    /// pairs of ranks of `(B^T B)_ij (A A^T)_ij`.
    ///
    /// For `DoRA` this is the change of direction before rows get their lengths.
    pub fn update_norm(&self, scale: f32) -> f64 {
        let rows_of_a: Vec<&[f32]> = self.a.chunks_exact(self.inputs.max(1)).collect();
        let columns_of_b: Vec<Vec<f32>> =
            (0..self.rank).map(|column| self.b.iter().skip(column).step_by(self.rank).copied().collect()).collect();
        let product =
            |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
        let mut square = 0.0;
        for (i, (a, b)) in rows_of_a.iter().zip(&columns_of_b).enumerate() {
            square += product(a, a) * product(b, b);
            for (other_a, other_b) in rows_of_a.iter().zip(&columns_of_b).skip(i + 1) {
                square += 2.0 * product(a, other_a) * product(b, other_b);
            }
        }
        // Rounding may leave a little less than nothing.
        f64::from(scale).abs() * square.max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_that_of_the_product() {
        let (rank, inputs, outputs) = (3, 7, 5);
        let wave = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
        let (a, b) = (wave(rank * inputs, 0.7), wave(outputs * rank, 1.3));
        let module = LoraModule { a, b, inputs, outputs, rank, alpha: 1.0, magnitude: None };
        let mut square = 0.0;
        for output in 0..outputs {
            for input in 0..inputs {
                let entry = |r: usize| f64::from(module.b[output * rank + r]) * f64::from(module.a[r * inputs + input]);
                square += (0..rank).map(entry).sum::<f64>().powi(2);
            }
        }
        assert!((module.update_norm(-2.5) - 2.5 * square.sqrt()).abs() < 1e-9);
    }
}
