//! Training and greedy texts on a device of burn, timed by the clock: its operations run beside this program and have no
//! times of their own here.

use super::{packed_rows, peak_bytes};
use crate::commands::Session;
use crate::commands::chat::open_engine;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::{Context, Result};
use espalier_inference::{Prompt, Request};
use espalier_model::{Model, SpecialTokens};
use espalier_train::{DeviceName, TrainConfig, TrainEvent, greedy, train};
use std::path::Path;
use std::time::Instant;

/// Steps at the start of a run that are not counted where there are more: kernels are compiled and chosen in them.
const WARM_UP: usize = 3;

/// `pipeline bench train --device ...`.
pub fn train_rate(
    reference: &str,
    batch: usize,
    rows: Option<&Path>,
    config: &TrainConfig,
    session: Session<'_>,
) -> Result<Status> {
    config.device.open()?;
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let data = packed_rows(&model, batch, rows, config, session)?;
    let folder = tempfile::tempdir().context("cannot create a folder for the run")?;
    let (mut laps, mut losses, mut base_bytes) = (Vec::new(), Vec::new(), 0);
    let mut lap = Instant::now();
    train(&model, &data.into(), config, folder.path(), session.stop, &mut |event| {
        match event {
            TrainEvent::Step { tokens, loss, .. } => {
                losses.push(loss);
                laps.push((tokens, lap.elapsed().as_secs_f64()));
            }
            TrainEvent::Plan(plan) => base_bytes = plan.frozen_bytes,
            // Files are written between steps; they belong to none.
            _ => {}
        }
        lap = Instant::now();
    })?;
    let first = laps.first().context("no step was counted")?.1;
    let mut counted = laps.split_off(WARM_UP.min(laps.len() - 1));
    counted.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    let (tokens, seconds) = counted[counted.len() / 2];
    let (rate, peak) = (tokens as f64 / seconds, peak_bytes());
    session.reporter.line(format!(
        "{rate:.0} tokens/s on {}, {tokens} real tokens a step of {seconds:.3} s; the first took {first:.1} s; {:.2} GB of this \
         machine's memory at most",
        config.device,
        peak as f64 / 1e9
    ));
    session.reporter.result(serde_json::json!({
        "device": config.device.to_string(), "tokens_per_second": rate, "seconds": seconds, "first_seconds": first,
        "tokens": tokens, "steps": counted.len(), "peak_bytes": peak, "base_bytes": base_bytes, "losses": losses,
        "precision": session.precision.to_string(),
    }));
    Ok(Status::Done)
}

/// `pipeline bench text`: greedy continuations of the lines of a file.
pub fn texts(reference: &str, prompts: &Path, new: usize, device: DeviceName, session: Session<'_>) -> Result<Status> {
    device.open()?;
    let lines = std::fs::read_to_string(prompts).with_context(|| format!("cannot read {}", prompts.display()))?;
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let tokenizer = model.tokenizer();
    let begin = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let prompt = |line: &str| begin.into_iter().chain(tokenizer.encode(line, SpecialTokens::AsText)).collect();
    let prompts: Vec<Vec<u32>> = lines.lines().map(prompt).collect();
    let begun = Instant::now();
    let written = if device == DeviceName::Cpu {
        by_engine(reference, &prompts, new, session)?
    } else {
        greedy(&model, &prompts, new, device, session.precision)?
    };
    let seconds = begun.elapsed().as_secs_f64();
    let texts: Vec<String> = written.iter().map(|tokens| tokenizer.decode(tokens)).collect();
    let count: usize = written.iter().map(Vec::len).sum();
    for text in &texts {
        session.reporter.line(text);
    }
    session.reporter.line(format!("{count} tokens on {device} in {seconds:.2} s, the model's reading included"));
    session.reporter.result(serde_json::json!({
        "device": device.to_string(), "texts": texts, "new_tokens": count, "seconds": seconds,
        "precision": session.precision.to_string(),
    }));
    Ok(Status::Done)
}

/// What the engine of the CPU writes.
fn by_engine(reference: &str, prompts: &[Vec<u32>], new: usize, session: Session<'_>) -> Result<Vec<Vec<u32>>> {
    let mut engine = open_engine(reference, None, session)?;
    engine.set_ignore_end(true);
    let requests: Vec<Request> =
        prompts.iter().map(|tokens| Request::new(Prompt::Tokens(tokens.clone()), new)).collect();
    let mut written = vec![Vec::new(); requests.len()];
    let mut failure = None;
    engine.generate(&requests, &mut |index, answer| match answer {
        Ok(answer) => {
            written[index] = answer.tokens;
            std::ops::ControlFlow::Continue(())
        }
        Err(error) => {
            failure = Some(error);
            std::ops::ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(written), |error| Err(error.into()))
}
