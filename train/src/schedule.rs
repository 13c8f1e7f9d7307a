//! The learning rate by step.

use std::f64::consts::PI;

use crate::TrainConfig;

/// The learning rate of `step` (from 0) of `steps`: a straight rise over the warm-up, then half a cosine down to its floor.
pub fn learning_rate(config: &TrainConfig, step: usize, steps: usize) -> f64 {
    let warmup = (config.warmup_ratio * steps as f64).ceil() as usize;
    if step < warmup {
        return config.learning_rate * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    let floor = config.final_learning_rate_ratio;
    config.learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + (PI * progress).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_floor() {
        let config = TrainConfig { learning_rate: 1.0, warmup_ratio: 0.1, ..TrainConfig::default() };
        let rates: Vec<f64> = (0..100).map(|step| learning_rate(&config, step, 100)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-12 && (rates[9] - 1.0).abs() < 1e-12 && (rates[10] - 1.0).abs() < 1e-12);
        assert!((rates[55] - 0.55).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|pair| pair[1] < pair[0]) && rates[99] > 0.1 && rates[99] < 0.101);
        let flat = TrainConfig { warmup_ratio: 0.0, ..config };
        assert!((learning_rate(&flat, 0, 1) - 1.0).abs() < 1e-12);
    }
}
