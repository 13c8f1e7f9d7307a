//! `AdamW` on flat parameters (Loshchilov and Hutter 2019), bit-equal for any number of threads.
//!
//! `m = b1 m + (1 - b1) g`; `v = b2 v + (1 - b2) g^2`;
//! `p -= lr (wd p + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps))`.

use espalier_nn::profile::{Cost, Operation, timed};

use crate::TrainConfig;

/// Elements whose squares are summed together, in order.
const BLOCK: usize = 1 << 12;

/// The moments of every parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Decayed mean of the gradient.
    pub first: Vec<f32>,
    /// Decayed mean of its square.
    pub second: Vec<f32>,
    /// Updates so far.
    pub updates: usize,
}

impl AdamW {
    /// For `count` parameters, before the first update.
    pub fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count], updates: 0 }
    }

    /// One update of `parameters` by `gradient`.
    pub fn update(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f64, config: &TrainConfig) {
        timed(Operation::Optimizer, Cost::values(7 * gradient.len()), || {
            self.update_values(parameters, gradient, learning_rate, config);
        });
    }

    fn update_values(&mut self, parameters: &mut [f32], gradient: &[f32], learning_rate: f64, config: &TrainConfig) {
        self.updates += 1;
        let correction = |beta: f64| 1.0 - beta.powi(self.updates as i32);
        let step = (learning_rate / correction(config.beta1)) as f32;
        let root = correction(config.beta2).sqrt() as f32;
        let (beta1, beta2, epsilon) = (config.beta1 as f32, config.beta2 as f32, config.epsilon as f32);
        let (rest1, rest2) = ((1.0 - config.beta1) as f32, (1.0 - config.beta2) as f32);
        let keep = (1.0 - learning_rate * config.weight_decay) as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *first = beta1 * *first + rest1 * gradient;
            *second = beta2 * *second + rest2 * gradient * gradient;
            *parameter = *parameter * keep - step * *first / (second.sqrt() / root + epsilon);
        }
    }
}

/// Euclidean norm of all gradients.
pub fn norm(gradient: &[f32]) -> f64 {
    let block = |values: &[f32]| values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    gradient.chunks(BLOCK).map(block).sum::<f64>().sqrt()
}

/// Scales the gradient down to `largest` when its norm is above it; returns the norm before.
pub fn clip(gradient: &mut [f32], largest: f64) -> f64 {
    timed(Operation::Optimizer, Cost::values(3 * gradient.len()), || clip_values(gradient, largest))
}

fn clip_values(gradient: &mut [f32], largest: f64) -> f64 {
    let norm = norm(gradient);
    if norm > largest {
        let factor = (largest / (norm + 1e-6)) as f32;
        for value in gradient {
            *value *= factor;
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_update_is_the_learning_rate_in_the_direction_of_the_gradient() {
        let mut optimizer = AdamW::new(3);
        let mut parameters = [1.0, 1.0, 1.0];
        optimizer.update(&mut parameters, &[0.5, -2.0, 0.0], 0.1, &TrainConfig::default());
        for (value, expected) in parameters.iter().zip([0.9, 1.1, 1.0]) {
            assert!((value - expected).abs() < 1e-6, "{value} for {expected}");
        }
    }

    #[test]
    fn weight_decay_is_not_part_of_the_gradient() {
        let mut optimizer = AdamW::new(1);
        let mut parameters = [2.0];
        let config = TrainConfig { weight_decay: 0.5, ..TrainConfig::default() };
        optimizer.update(&mut parameters, &[0.0], 0.1, &config);
        assert!((parameters[0] - 1.9).abs() < 1e-6 && optimizer.first[0] == 0.0);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut gradient = vec![3.0, 4.0];
        assert!((clip(&mut gradient, 1.0) - 5.0).abs() < 1e-12);
        assert!((gradient[0] - 0.6).abs() < 1e-6 && (gradient[1] - 0.8).abs() < 1e-6);
        let mut small = vec![0.3];
        clip(&mut small, 1.0);
        assert_eq!(small, [0.3]);
    }
}
