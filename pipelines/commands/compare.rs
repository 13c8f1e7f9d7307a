//! `pipeline compare`: what files of one model cost, and how far they lie from it.

mod plot;

use super::Session;
use crate::cli::CompareArguments;
use crate::content::write_atomically;
use crate::models::resolve;
use crate::outcome::{Failure, Interrupted, Status};
use crate::reporter::size;
use crate::stages::{StageContext, measured};
use anyhow::Result;
use espalier_inference::{EngineOptions, NativeEngine};
use espalier_model::Model;
use espalier_quantize::{Divergence, Estimate, MeasuredText, QuantizeError, divergence};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::Path;

/// One file of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// As it was named.
    pub model: String,
    /// Bytes of the tensors.
    pub bytes: u64,
    /// Mean bits a weight.
    pub bits_per_weight: f64,
    /// The figures.
    pub divergence: Divergence,
    /// Whether none of the others is smaller and nearer to the reference.
    pub front: bool,
}

struct Opened {
    name: String,
    model: Model,
}

impl Opened {
    fn new(name: &str, session: Session<'_>) -> Result<Self> {
        let found = resolve(name, session.reporter, session.stop)?;
        Ok(Self { name: name.to_owned(), model: Model::open(&found.path)? })
    }

    fn bytes(&self) -> u64 {
        let bytes = |info: &espalier_model::TensorInfo| {
            info.rows * info.columns / info.block_type.block_size() * info.block_type.block_bytes()
        };
        self.model.tensors().map(|info| bytes(info) as u64).sum()
    }

    fn bits_per_weight(&self) -> f64 {
        let weights: usize = self.model.tensors().map(|info| info.rows * info.columns).sum();
        self.bytes() as f64 * 8.0 / weights as f64
    }
}

/// `pipeline compare`.
pub fn run(arguments: &CompareArguments, session: Session<'_>) -> Result<Status> {
    let mut candidates = arguments.models.iter().map(|name| Opened::new(name, session)).collect::<Result<Vec<_>>>()?;
    let reference = match &arguments.reference {
        Some(name) => Opened::new(name, session)?,
        None => candidates.remove(largest(&candidates)?),
    };
    let context = session.stage("compare");
    let options = session.engine_options();
    let engine = NativeEngine::load(&reference.model, None, &options)?;
    // The command line has one of them.
    let data = arguments.text.as_ref().or(arguments.data.as_ref()).map(String::as_str).unwrap_or_default();
    let mut texts = measured::texts(&reference.model, &engine, data, &context)?;
    texts.truncate(arguments.chunks.unwrap_or(usize::MAX));
    let mut rows = Vec::new();
    for candidate in &candidates {
        let divergence = measure(&engine, candidate, &options, &texts, &context)?;
        rows.push(Compared {
            model: candidate.name.clone(),
            bytes: candidate.bytes(),
            bits_per_weight: candidate.bits_per_weight(),
            divergence,
            front: false,
        });
    }
    mark_front(&mut rows);
    session.reporter.line(table(&reference, &rows));
    if rows.len() > 1 {
        session.reporter.line(plot::in_text(&rows));
    }
    if let Some(path) = &arguments.plot {
        write_atomically(path, plot::svg(&rows).as_bytes())?;
    }
    session.reporter.result(serde_json::json!({"reference": reference.name, "models": rows, "plot": arguments.plot}));
    Ok(Status::Done)
}

fn largest(candidates: &[Opened]) -> Result<usize> {
    let place = (0..candidates.len()).max_by_key(|&place| (candidates[place].bytes(), std::cmp::Reverse(place)));
    place.filter(|_| candidates.len() > 1).ok_or_else(|| {
        Failure::usage("one file alone has nothing to be held against")
            .hint("name the model that it was made from with `--reference`")
            .into()
    })
}

fn measure(
    reference: &NativeEngine,
    candidate: &Opened,
    options: &EngineOptions,
    texts: &[MeasuredText],
    context: &StageContext<'_>,
) -> Result<Divergence> {
    let engine = NativeEngine::load(&candidate.model, None, options)?;
    let part = Path::new(&candidate.name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let total = texts.len() as u64;
    let found = divergence(reference, &engine, texts, &mut |done| {
        context.progress(&part, done as u64, total, "texts", "");
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match found {
        Err(QuantizeError::Interrupted) => Err(Interrupted.into()),
        found => Ok(found?),
    }
}

/// Marks the files that no other beats in size and in divergence.
fn mark_front(rows: &mut [Compared]) {
    let points: Vec<(u64, f64)> = rows.iter().map(|row| (row.bytes, row.divergence.mean_kld.value)).collect();
    for (row, &(bytes, kld)) in rows.iter_mut().zip(&points) {
        row.front = !points.iter().any(|&(other_bytes, other_kld)| {
            other_bytes <= bytes && other_kld <= kld && (other_bytes < bytes || other_kld < kld)
        });
    }
}

/// A figure with half the width of its interval.
pub fn figure(estimate: Estimate, digits: usize) -> String {
    let half = estimate.interval.map(|[low, high]| format!(" ±{:.digits$}", (high - low) / 2.0)).unwrap_or_default();
    format!("{:.digits$}{half}", estimate.value)
}

fn percent(estimate: Estimate) -> Estimate {
    Estimate {
        value: 100.0 * estimate.value,
        interval: estimate.interval.map(|[low, high]| [100.0 * low, 100.0 * high]),
    }
}

fn table(reference: &Opened, rows: &[Compared]) -> String {
    let mut lines = vec![
        format!(
            "against {} ({}, {:.2} bits a weight)",
            reference.name,
            size(reference.bytes()),
            reference.bits_per_weight()
        ),
        format!(
            "{:<2}{:<32} {:>9} {:>6} {:>20} {:>9} {:>9} {:>15} {:>15} {:>17}",
            "",
            "model",
            "size",
            "bits",
            "mean divergence",
            "median",
            "99.9 %",
            "same top, %",
            "delta p, %",
            "perplexity ratio"
        ),
    ];
    for row in rows {
        let figures = &row.divergence;
        lines.push(format!(
            "{:<2}{:<32} {:>9} {:>6.2} {:>20} {:>9.5} {:>9.4} {:>15} {:>15} {:>17}",
            if row.front { "*" } else { "" },
            row.model,
            size(row.bytes),
            row.bits_per_weight,
            figure(figures.mean_kld, 5),
            figures.median.value,
            figures.p99_9.value,
            figure(percent(figures.same_top), 2),
            figure(percent(figures.rms_delta_p), 2),
            figure(figures.perplexity_ratio, 4),
        ));
    }
    if let Some(row) = rows.first() {
        lines.push(format!(
            "{} tokens of {} texts; ± is half of the 95 % interval; * no other file is smaller and nearer",
            row.divergence.tokens, row.divergence.texts
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three files, of which the second is larger and worse than the first.
    pub(super) fn rows() -> Vec<Compared> {
        let estimate = |value: f64| Estimate { value, interval: Some([value * 0.9, value * 1.1]) };
        let row = |model: &str, bytes: u64, kld: f64| Compared {
            model: model.to_owned(),
            bytes,
            bits_per_weight: bytes as f64 / 20e6,
            divergence: Divergence {
                mean_kld: estimate(kld),
                median: estimate(kld / 2.0),
                p90: estimate(kld * 2.0),
                p99: estimate(kld * 4.0),
                p99_9: estimate(kld * 8.0),
                max: kld * 10.0,
                same_top: estimate(0.9),
                mean_delta_p: estimate(-0.01),
                rms_delta_p: estimate(0.05),
                perplexity_ratio: estimate(1.0 + kld),
                tokens: 4080,
                texts: 16,
            },
            front: false,
        };
        let mut rows = vec![
            row("a.Q4_K_M.gguf", 90_000_000, 0.02),
            row("b.Q4_1.gguf", 95_000_000, 0.04),
            row("c.Q8_0.gguf", 145_000_000, 0.001),
        ];
        mark_front(&mut rows);
        rows
    }

    #[test]
    fn the_front_is_what_no_other_beats() {
        assert_eq!(rows().iter().map(|row| row.front).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(figure(rows()[0].divergence.mean_kld, 4), "0.0200 ±0.0020");
    }
}
