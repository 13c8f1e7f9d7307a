//! What a person may wonder about before the first step, with the reasons.

use crate::TrainConfig;
use crate::event::Derived;
use crate::forgetting::Slice;
use crate::pack::Plan;
use crate::tokens::Sequences;

/// Values that follow from others or from experience.
pub(crate) fn derived(
    config: &TrainConfig,
    plan: &Plan,
    held_out: &Sequences,
    slice: Option<&Slice<'_>>,
) -> Vec<Derived> {
    let usual = TrainConfig::default();
    let learning_rate = if config.learning_rate.to_bits() == usual.learning_rate.to_bits() {
        "the default for LoRA: about ten times that of full fine-tuning, nearly independent of the rank"
    } else {
        "as the settings say"
    };
    let steps = match config.max_steps {
        Some(_) => format!("max_steps; {} are one epoch", plan.steps_per_epoch()),
        None => format!("{} epochs of about {}", config.epochs, plan.steps_per_epoch()),
    };
    let checkpoints = match plan.steps() / config.checkpoint_every {
        0 => "the run is shorter: it has one at its end".to_owned(),
        count => format!("{count} in the run; an interruption costs no more than so many steps"),
    };
    let of = |name, value: String, reason: String| Derived { name, value, reason };
    let mut values = vec![
        of("steps", plan.steps().to_string(), steps),
        of("learning_rate", config.learning_rate.to_string(), learning_rate.to_owned()),
        of("checkpoint_every", config.checkpoint_every.to_string(), checkpoints),
    ];
    let held_out: usize = held_out.rows.iter().map(|row| row.tokens.len() - 1).sum();
    let looked_at = held_out + slice.map_or(0, Slice::inputs);
    if looked_at > 0 {
        let whence = if config.validation_every.is_some() { "as the settings say" } else { "with every checkpoint" };
        // A forward pass alone is about half of a step: the gradient of frozen products costs as much again.
        let share = looked_at as f64 / 2.0 / (config.validation_every() * config.tokens_per_step) as f64;
        let reason =
            format!("{whence}; looking at {looked_at} tokens takes about {:.1} % as long as training", 100.0 * share);
        values.push(of("validation_every", config.validation_every().to_string(), reason));
    }
    if held_out > 0 {
        let reason = match config.metric_for_best_model {
            crate::Metric::Loss => "the adapter is that of the checkpoint with the lowest loss of the held-out rows",
            crate::Metric::Accuracy => "the adapter is that of the checkpoint that has most held-out rows right",
        };
        values.push(of("metric_for_best_model", config.metric_for_best_model.to_string(), reason.to_owned()));
    }
    if let Some(slice) = slice {
        let reason = format!("of {} tokens of general text, evenly spaced", slice.of);
        values.push(of("forgetting_tokens", slice.tokens.to_string(), reason));
    }
    values
}
