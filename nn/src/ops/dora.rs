//! The row scaling of `DoRA` (Liu et al., 2024) around the updates of a group.
//!
//! With `z = x (W + s B A)^T` as the low-rank operation computes it and the rows' norms `n_o = |W_o + s B_o A|`:
//! `y_o = (m_o / n_o) z_o + bias_o`. The norms have no gradient (section 4.3 of the paper, and PEFT), so
//! `dz_o = (m_o / n_o) dy_o` and `dm_o = sum_t dy_o z_o / n_o`.
//!
//! `W + s B A` is never formed: `n_o^2 = |W_o|^2 + 2 s (W A^T)_o . B_o + s^2 B_o (A A^T) B_o^T`, where `|W_o|^2` is known
//! before the first step and everything else is skinny. A row of zeros stays one.

use espalier_kernels::{Accumulate, Element, Values, ValuesMut, bf16, matmul_nt};
use rayon::prelude::*;

use super::frozen_linear::FrozenLinear;
use super::lora_linear::{GroupParameters, LoraGroup};

/// Rows of the identity that go through the frozen product at a time.
const IDENTITY_ROWS: usize = 256;

/// `|W_o|^2` of the rows of a frozen weight, as its products see it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowLengths(Vec<f32>);

impl RowLengths {
    /// Reads the weight through its products with the identity, in whichever direction has fewer of them: it may lie in any
    /// form.
    pub fn of(frozen: &FrozenLinear) -> Self {
        let (inputs, outputs) = (frozen.inputs(), frozen.outputs());
        let mut squares = vec![0.0_f64; outputs];
        let (width, by_row) = if outputs <= inputs { (outputs, true) } else { (inputs, false) };
        let mut values = vec![0.0; IDENTITY_ROWS * inputs.max(outputs)];
        for first in (0..width).step_by(IDENTITY_ROWS) {
            let count = IDENTITY_ROWS.min(width - first);
            let mut identity = vec![0.0; count * width];
            for row in 0..count {
                identity[row * width + first + row] = 1.0;
            }
            if by_row {
                let values = &mut values[..count * inputs];
                frozen.apply_transposed(&identity, count, values);
                for (square, row) in squares[first..].iter_mut().zip(values.chunks_exact(inputs)) {
                    *square = row.iter().map(|&value| f64::from(value).powi(2)).sum();
                }
            } else {
                let values = &mut values[..count * outputs];
                frozen.product(Values::F32(&identity), count, ValuesMut::F32(values), Accumulate::Overwrite);
                for column in values.chunks_exact(outputs) {
                    for (square, &value) in squares.iter_mut().zip(column) {
                        *square += f64::from(value).powi(2);
                    }
                }
            }
        }
        Self(squares.into_iter().map(|square| square as f32).collect())
    }

    /// The lengths themselves: the first magnitudes.
    pub fn lengths(&self) -> impl Iterator<Item = f32> {
        self.0.iter().map(|square| square.sqrt())
    }

    /// `n_o` for every output; outputs of frozen modules get the length of their row.
    pub(crate) fn norms(&self, group: &LoraGroup, parts: GroupParameters<'_>, norms: &mut [f32]) {
        let (inputs, outputs, width) = (group.frozen.inputs(), group.frozen.outputs(), group.plan.stacked_rank());
        for (norm, length) in norms.iter_mut().zip(self.lengths()) {
            *norm = length;
        }
        // (W A^T)^T.
        let mut cross = vec![0.0; width * outputs];
        group.frozen.product(Values::F32(parts.a), width, ValuesMut::F32(&mut cross), Accumulate::Overwrite);
        let (mut first_rank, mut b) = (0, parts.b);
        for module in &group.plan.modules {
            let (rank, scale) = (module.rank, f64::from(module.scale));
            let a = &parts.a[first_rank * inputs..(first_rank + rank) * inputs];
            let mut gram = vec![0.0; rank * rank];
            matmul_nt(a, a, rank, rank, inputs, 1.0, &mut gram, Accumulate::Overwrite);
            let (own, rest) = b.split_at(module.outputs.len() * rank);
            let rows = norms[module.outputs.clone()].par_iter_mut().zip(own.par_chunks_exact(rank));
            rows.zip(module.outputs.clone().into_par_iter()).for_each(|((norm, b), output)| {
                let (mut linear, mut square) = (0.0, 0.0);
                for (r, &value) in b.iter().enumerate() {
                    linear += f64::from(cross[(first_rank + r) * outputs + output]) * f64::from(value);
                    let product = gram[r * rank..(r + 1) * rank].iter().zip(b);
                    let sum: f64 = product.map(|(g, other)| f64::from(*g) * f64::from(*other)).sum();
                    square += f64::from(value) * sum;
                }
                let total = f64::from(self.0[output]) + 2.0 * scale * linear + scale * scale * square;
                *norm = (total.max(0.0) as f32).sqrt();
            });
            (first_rank, b) = (first_rank + rank, rest);
        }
    }
}

impl LoraGroup {
    /// `m / n` for every output; 1 for those of frozen modules.
    fn row_factors(&self, magnitudes: &[f32], norms: &[f32]) -> Vec<f32> {
        let mut factors = vec![1.0; norms.len()];
        let adapted = self.plan.modules.iter().flat_map(|module| module.outputs.clone());
        for (output, magnitude) in adapted.zip(magnitudes) {
            factors[output] = if norms[output] > 0.0 { magnitude / norms[output] } else { 0.0 };
        }
        factors
    }

    /// `y (=|+=) (m / n) z + bias` for `z [t, outputs]`.
    pub(super) fn scale_rows(
        &self,
        z: &[f32],
        magnitudes: &[f32],
        norms: &[f32],
        y: ValuesMut<'_>,
        accumulate: Accumulate,
    ) {
        let factors = self.row_factors(magnitudes, norms);
        match y {
            ValuesMut::F32(y) => {
                y.par_chunks_exact_mut(factors.len()).zip(z.par_chunks_exact(factors.len())).for_each(|(y, z)| {
                    for ((y, z), factor) in y.iter_mut().zip(z).zip(&factors) {
                        match accumulate {
                            Accumulate::Overwrite => *y = factor * z,
                            Accumulate::Add => *y += factor * z,
                        }
                    }
                });
                self.frozen.add_bias(ValuesMut::F32(y));
            }
            ValuesMut::Bf16(y) => self.scale_rows_rounded(z, &factors, y),
        }
    }

    /// The same into bf16, rounded once; such results are never added to.
    fn scale_rows_rounded(&self, z: &[f32], factors: &[f32], y: &mut [bf16]) {
        let bias = self.frozen.bias();
        y.par_chunks_exact_mut(factors.len()).zip(z.par_chunks_exact(factors.len())).for_each(|(y, z)| {
            for (output, (y, z)) in y.iter_mut().zip(z).enumerate() {
                let scaled = factors[output] * z;
                *y = bf16::round(bias.map_or(scaled, |bias| scaled + bias[output]));
            }
        });
    }

    /// `dz` from `dy`, and the gradient of the magnitudes.
    pub(super) fn scale_rows_backward(
        &self,
        dy: &[f32],
        [z, norms]: [&[f32]; 2],
        magnitudes: &[f32],
        dmagnitudes: &mut [f32],
        dz: &mut [f32],
    ) {
        let (factors, outputs) = (self.row_factors(magnitudes, norms), self.frozen.outputs());
        dz.par_chunks_exact_mut(outputs).zip(dy.par_chunks_exact(outputs)).for_each(|(dz, dy)| {
            for ((dz, dy), factor) in dz.iter_mut().zip(dy).zip(&factors) {
                *dz = factor * dy;
            }
        });
        let adapted: Vec<usize> = self.plan.modules.iter().flat_map(|module| module.outputs.clone()).collect();
        // Each output sums over the rows in their order, in f64.
        dmagnitudes.par_chunks_mut(OUTPUTS_PER_TASK).zip(adapted.par_chunks(OUTPUTS_PER_TASK)).for_each(
            |(gradients, adapted)| {
                let mut sums = [0.0_f64; OUTPUTS_PER_TASK];
                for (dy, z) in dy.chunks_exact(outputs).zip(z.chunks_exact(outputs)) {
                    for (sum, &output) in sums.iter_mut().zip(adapted) {
                        *sum += f64::from(dy[output] * z[output]);
                    }
                }
                for ((gradient, sum), &output) in gradients.iter_mut().zip(sums).zip(adapted) {
                    *gradient = if norms[output] > 0.0 { (sum / f64::from(norms[output])) as f32 } else { 0.0 };
                }
            },
        );
    }
}

/// Outputs whose gradients one task sums up.
const OUTPUTS_PER_TASK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};
    use espalier_kernels::Precision;

    #[test]
    fn lengths_are_those_of_the_rows_in_both_directions() {
        for (outputs, inputs) in [(5, 300), (700, 40)] {
            let weight = noise(3, outputs * inputs);
            for bias in [None, Some(noise(4, outputs))] {
                let frozen = FrozenLinear::pack(Precision::F32, outputs, inputs, bias, &|row, out| {
                    out.copy_from_slice(&weight[row * inputs..(row + 1) * inputs]);
                });
                let expected: Vec<f32> = weight
                    .chunks_exact(inputs)
                    .map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32)
                    .collect();
                let found: Vec<f32> = RowLengths::of(&frozen).lengths().collect();
                assert_close(&found, &expected, 1e-6, "lengths");
            }
        }
    }
}
