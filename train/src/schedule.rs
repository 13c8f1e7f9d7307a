//! The learning rate by step.
//!
//! After a straight rise over the warm-up, with `p` from 0 to 1 over the steps behind it and the floor `f` (a share of the
//! peak), the rate is the peak times
//!
//! - `constant`: 1
//! - `linear`: `f + (1 - f) (1 - p)`
//! - `cosine`: `f + (1 - f) (1 + cos(pi p)) / 2` (Loshchilov and Hutter 2017, "SGDR", without restarts)
//! - `wsd`: 1 (warm-up, stable), and over the last share `d` of the steps `f + (1 - f) (1 - sqrt(q))` with `q` from 0 to 1
//!   (warm-up, stable, decay: Hu et al. 2024, section 4; the root is the best form of Hägele et al. 2024, section 3)

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::TrainConfig;

/// The form of the learning rate behind the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The peak up to the end.
    Constant,
    /// A straight line to the floor.
    Linear,
    /// Half a cosine to the floor.
    #[default]
    Cosine,
    /// The peak, and a decay over the last steps: what came before it may go on from a checkpoint with more data.
    Wsd,
}

/// The learning rate of `step` (from 0) of `steps`.
pub fn learning_rate(config: &TrainConfig, step: usize, steps: usize) -> f64 {
    let warmup = config.warmup_steps.unwrap_or((config.warmup_ratio * steps as f64).ceil() as usize).min(steps);
    if step < warmup {
        return config.learning_rate * (step + 1) as f64 / warmup as f64;
    }
    let share = |first: usize| (step - first) as f64 / (steps - first).max(1) as f64;
    let shape = match config.schedule {
        Schedule::Constant => return config.learning_rate,
        Schedule::Linear => 1.0 - share(warmup),
        Schedule::Cosine => 0.5 * (1.0 + (PI * share(warmup)).cos()),
        Schedule::Wsd => {
            let decay = (config.decay_ratio * steps as f64).ceil() as usize;
            let first = steps.saturating_sub(decay).max(warmup);
            if step < first { 1.0 } else { 1.0 - share(first).sqrt() }
        }
    };
    let floor = config.final_learning_rate_ratio;
    config.learning_rate * (floor + (1.0 - floor) * shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(config: &TrainConfig) -> Vec<f64> {
        (0..100).map(|step| learning_rate(config, step, 100)).collect()
    }

    fn config(schedule: Schedule) -> TrainConfig {
        TrainConfig { learning_rate: 1.0, warmup_ratio: 0.1, schedule, ..TrainConfig::default() }
    }

    #[test]
    fn rises_then_falls_to_the_floor() {
        let config = config(Schedule::Cosine);
        let rates = rates(&config);
        assert!((rates[0] - 0.1).abs() < 1e-12 && (rates[9] - 1.0).abs() < 1e-12 && (rates[10] - 1.0).abs() < 1e-12);
        assert!((rates[55] - 0.55).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|pair| pair[1] < pair[0]) && rates[99] > 0.1 && rates[99] < 0.101);
        let flat = TrainConfig { warmup_ratio: 0.0, ..config };
        assert!((learning_rate(&flat, 0, 1) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn each_form_is_its_formula() {
        let close = |one: f64, other: f64| assert!((one - other).abs() < 1e-12, "{one} for {other}");
        let constant = rates(&config(Schedule::Constant));
        close(constant[4], 0.5);
        assert!(constant[9..].iter().all(|rate| (rate - 1.0).abs() < 1e-12));
        let linear = rates(&config(Schedule::Linear));
        close(linear[10], 1.0);
        close(linear[55], 0.1 + 0.9 * 0.5);
        close(linear[99], 0.1 + 0.9 / 90.0);
        let wsd = rates(&config(Schedule::Wsd));
        assert!(wsd[9..=80].iter().all(|rate| (rate - 1.0).abs() < 1e-12));
        close(wsd[85], 0.1 + 0.9 * 0.5);
        close(wsd[99], 0.1 + 0.9 * (1.0 - (19.0_f64 / 20.0).sqrt()));
    }

    #[test]
    fn a_warm_up_may_be_counted_in_steps() {
        let config = TrainConfig { warmup_steps: Some(4), ..config(Schedule::Constant) };
        let rates = rates(&config);
        assert!((rates[0] - 0.25).abs() < 1e-12 && (rates[3] - 1.0).abs() < 1e-12 && (rates[4] - 1.0).abs() < 1e-12);
        let long = TrainConfig { warmup_steps: Some(1000), ..config };
        assert!((learning_rate(&long, 99, 100) - 1.0).abs() < 1e-12);
    }
}
