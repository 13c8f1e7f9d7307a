//! What an adapter makes of the rows of a frozen matrix.
//!
//! `LoRA` adds `s B A` to `W`; `DoRA` scales each row of the sum to the length that it has learned (Liu et al., 2024).
//! Each row is computed on its own in one order: the result does not depend on which rows are merged together, nor on the
//! number of threads.

use super::LoraModule;

impl LoraModule {
    /// Row `output` of `W` becomes that row of `W + s B A`, scaled to its magnitude where the module has them.
    ///
    /// # Shapes
    ///
    /// `row`: inputs; `scratch`: at least inputs, overwritten.
    pub fn merge_into_row(&self, scale: f32, output: usize, row: &mut [f32], scratch: &mut [f32]) {
        let factor = self.add_update_to_row(scale, output, row, scratch);
        if self.magnitude.is_some() {
            for value in row.iter_mut() {
                *value *= factor;
            }
        }
    }

    /// Row `output` of `W` becomes that row of `W + s B A`; returns what `DoRA` multiplies it by (its magnitude over its
    /// norm; 1 where there are no magnitudes, 0 for a row of zeros).
    ///
    /// `B A` is summed in `f32` over the ranks in ascending order, then scaled and added; the norm is summed in `f64`.
    ///
    /// # Shapes
    ///
    /// `row`: inputs; `scratch`: at least inputs, overwritten.
    pub fn add_update_to_row(&self, scale: f32, output: usize, row: &mut [f32], scratch: &mut [f32]) -> f32 {
        let delta = &mut scratch[..self.inputs];
        delta.fill(0.0);
        let b = &self.b[output * self.rank..][..self.rank];
        for (b, a) in b.iter().zip(self.a.chunks_exact(self.inputs)) {
            for (delta, a) in delta.iter_mut().zip(a) {
                *delta += b * a;
            }
        }
        for (value, delta) in row.iter_mut().zip(delta) {
            *value += scale * *delta;
        }
        let Some(magnitude) = &self.magnitude else {
            return 1.0;
        };
        let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 { (f64::from(magnitude[output]) / norm) as f32 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_row_is_the_product_in_f64_and_has_its_magnitude() {
        let (rank, inputs, outputs, scale) = (16, 48, 5, 2.0_f32);
        let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin() * 0.3).collect::<Vec<_>>();
        let lora = LoraModule {
            a: wave(rank * inputs, 0.7),
            b: wave(outputs * rank, 1.3),
            inputs,
            outputs,
            rank,
            alpha: 32.0,
            magnitude: None,
        };
        let dora = LoraModule { magnitude: Some(vec![0.5, 1.0, 2.0, 3.0, 4.0]), ..lora.clone() };
        for output in 0..outputs {
            let before: Vec<f32> = (0..inputs).map(|i| (i as f32).cos()).collect();
            let sum = |i: usize| {
                let product = |r: usize| f64::from(lora.b[output * rank + r]) * f64::from(lora.a[r * inputs + i]);
                f64::from(before[i]) + f64::from(scale) * (0..rank).map(product).sum::<f64>()
            };
            let expected: Vec<f64> = (0..inputs).map(sum).collect();
            let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
            let magnitude = f64::from(dora.magnitude.as_ref().unwrap()[output]);
            for (module, factor) in [(&lora, 1.0), (&dora, magnitude / norm)] {
                let (mut row, mut scratch) = (before.clone(), vec![9.0; inputs]);
                module.merge_into_row(scale, output, &mut row, &mut scratch);
                for (got, expected) in row.iter().zip(&expected) {
                    assert!((f64::from(*got) - factor * expected).abs() < 1e-5, "{got} {}", factor * expected);
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_one() {
        let module = LoraModule {
            a: vec![0.0; 2],
            b: vec![0.0],
            inputs: 2,
            outputs: 1,
            rank: 1,
            alpha: 1.0,
            magnitude: Some(vec![0.0]),
        };
        let mut row = [0.0; 2];
        module.merge_into_row(1.0, 0, &mut row, &mut [0.0; 2]);
        assert!(row.iter().all(|value| value.to_bits() == 0));
    }
}
