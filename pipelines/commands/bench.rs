//! `pipeline bench`: rates of this machine, as whole runs of real work.
//!
//! Every result holds `seconds`, what they were spent on, and `bound`: the name of the limit that the weight products of this
//! work meet first on this machine, with the seconds of that limit and the share of it that was reached. A training step is
//! also told by operation, each with a bound of its own and with the time that it takes when it runs alone.

mod encoding;
mod eval;
mod on_device;
mod operations;
mod stored;

use self::operations::{StepClock, table};
use super::Session;
use super::chat::{open_for_one, open_for_texts};
use crate::bound::{Bound, Rates, matmul_weights};
use crate::cli::BenchCommand;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::{Context, Result};
use espalier_dataset::Turn;
use espalier_inference::{Counts, NativeEngine, Prompt, Request, WeightForm};
use espalier_kernels::{
    Accumulate, Element, PackedMatrix, Precision, Values, ValuesMut, arithmetic, bf16, matmul, matmul_values,
};
use espalier_model::{Model, SpecialTokens};
use espalier_train::profile::{self, Counting};
use espalier_train::{
    BaseWeights, DataItem, DataSource, DeviceName, Sequences, TrainConfig, TrainEvent, encode, load, train,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// `pipeline bench ...`.
pub fn run(command: BenchCommand, session: Session<'_>) -> Result<Status> {
    match command {
        BenchCommand::Gemm { block_type: None } => gemm(session),
        BenchCommand::Gemm { block_type: Some(block_type) } => stored::gemm(&block_type, session),
        BenchCommand::Generate { model, sequences, prompt, new, shared_prefix } => {
            generate(&model, sequences, prompt, new, shared_prefix, session)
        }
        BenchCommand::Eval { model, tasks, limit, num_fewshot, data_dir } => {
            let asked =
                eval::Asked { tasks: &tasks, limit: limit.map(Into::into), num_fewshot, data_dir: data_dir.as_deref() };
            eval::rate(&model, &asked, session)
        }
        BenchCommand::Quantize { types } => encoding::rates(&types, session),
        BenchCommand::Text { model, prompts, new, device } => on_device::texts(&model, &prompts, new, device, session),
        BenchCommand::Train { model, batch, seq, rank, steps, base_weights, device, data } => {
            let config = TrainConfig {
                rank,
                // One more, of which every operation is run alone.
                max_steps: Some(steps.max(2) + usize::from(device == DeviceName::Cpu)),
                device,
                tokens_per_step: batch * seq,
                max_sequence: seq,
                precision: session.precision,
                base_weights: base_weights.into(),
                memory: session.memory,
                ..TrainConfig::default()
            };
            let rate = if device == DeviceName::Cpu { train_rate } else { on_device::train_rate };
            rate(&model, batch, data.as_deref(), &config, session)
        }
    }
}

const SHAPES: [(usize, usize, usize); 6] =
    [(1, 576, 1536), (32, 576, 1536), (512, 576, 1536), (2048, 576, 1536), (2048, 1536, 576), (1024, 2048, 8192)];

fn gemm(session: Session<'_>) -> Result<Status> {
    let begun = Instant::now();
    let rates = Rates::measure(session.precision);
    let mut rows = Vec::new();
    for (m, k, n) in SHAPES {
        let weight = |row: usize, out: &mut [f32]| {
            for (column, value) in out.iter_mut().enumerate() {
                *value = ((row * 31 + column * 17) % 97) as f32 / 97.0 - 0.5;
            }
        };
        let packed = PackedMatrix::pack(session.precision, n, k, &weight);
        let x: Vec<f32> = (0..m * k).map(|index| (index % 89) as f32 / 89.0 - 0.5).collect();
        let mut y = vec![0.0; m * n];
        let seconds = median(|| matmul(&x, m, &packed, &mut y, Accumulate::Overwrite));
        let operations = 2.0 * (m * k * n) as f64;
        let rate = |seconds: f64| operations / seconds / 1e9;
        // Operands smaller than the caches are read from memory once, not in each call: an upper limit of that time.
        let moved = packed.bytes() + size_of::<f32>() * (x.len() + y.len());
        let mut row = serde_json::json!({"m": m, "k": k, "n": n, "gflops": rate(seconds), "seconds": seconds});
        Bound::of(operations, moved as f64, rates).write(seconds, &mut row);
        let mut line = format!("{m:>5} x {k:>5} x {n:>5}   {:>8.0} GFLOP/s", rate(seconds));
        if session.precision == Precision::Bf16 {
            let rounded: Vec<bf16> = x.iter().map(|&value| bf16::round(value)).collect();
            let mut y = vec![bf16::ZERO; m * n];
            let seconds = median(|| {
                let (from, into) = (Values::Bf16(&rounded), ValuesMut::Bf16(&mut y));
                matmul_values(from, m, &packed, into, Accumulate::Overwrite);
            });
            row["bf16_gflops"] = rate(seconds).into();
            line += &format!(" {:>8.0} in and out of bf16", rate(seconds));
        }
        session.reporter.line(line);
        rows.push(row);
    }
    let isa = arithmetic();
    session.reporter.line(format!(
        "{isa}; best product {:.0} GFLOP/s, memory read at {:.1} GB/s",
        rates.operations_per_second / 1e9,
        rates.bytes_per_second / 1e9
    ));
    session.reporter.result(serde_json::json!({
        "gemm": rows, "precision": session.precision.to_string(), "instruction_set": isa,
        "threads": rayon::current_num_threads(), "seconds": begun.elapsed().as_secs_f64(),
        "peak_gflops": rates.operations_per_second / 1e9, "memory_gigabytes_per_second": rates.bytes_per_second / 1e9,
        "peak_bytes": peak_bytes(),
    }));
    Ok(Status::Done)
}

/// Median seconds of a call from a pool's own thread, as the engine and the trainer make them; the first touches every page
/// and is not counted.
fn median(mut call: impl FnMut() + Send) -> f64 {
    let mut times = Vec::new();
    rayon::scope(|_| {
        call();
        let begun = Instant::now();
        while times.len() < 5 || (begun.elapsed().as_secs_f64() < 0.5 && times.len() < 200) {
            let start = Instant::now();
            call();
            times.push(start.elapsed().as_secs_f64());
        }
    });
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn generate(
    reference: &str,
    sequences: usize,
    prompt: usize,
    new: usize,
    shared: usize,
    session: Session<'_>,
) -> Result<Status> {
    // One text at a time is what people do in a conversation: it runs as there.
    let open = if sequences == 1 { open_for_one } else { open_for_texts };
    let mut engine = open(reference, None, session)?;
    let found = resolve(reference, session.reporter, session.stop)?;
    let (blocks, head) = matmul_weights(Model::open(&found.path)?.config());
    engine.set_ignore_end(true);
    let vocabulary = engine.tokenizer().vocabulary() as u64;
    // Ordinary ids, the same on every machine; special ones stand at the ends of a vocabulary.
    let token = |sequence: usize, position: usize| {
        let mixed =
            ((sequence as u64 + 1) * 0x9E37_79B9_7F4A_7C15).wrapping_add(position as u64 * 0xBF58_476D_1CE4_E5B9);
        (vocabulary / 4 + (mixed >> 33) % (vocabulary / 2)) as u32
    };
    let requests: Vec<Request> = (0..sequences)
        .map(|sequence| {
            let tokens = (0..shared).map(|p| token(0, p)).chain((0..prompt).map(|p| token(sequence + 1, p))).collect();
            Request::new(Prompt::Tokens(tokens), new)
        })
        .collect();
    let (seconds, counts) = timed(&engine, &requests)?;
    // The prompts again, for themselves: what is left of the whole is writing.
    let prompts: Vec<Request> = requests.iter().map(|request| Request { max_tokens: 1, ..request.clone() }).collect();
    let (prompt_seconds, _) = timed(&engine, &prompts)?;
    let prompt_rate = counts.prompt_tokens_computed as f64 / prompt_seconds;
    let decode_rate = counts.new_tokens.saturating_sub(sequences) as f64 / (seconds - prompt_seconds).max(1e-9);
    let peak = peak_bytes();
    let rate = counts.new_tokens as f64 / seconds;
    // The head is only needed where a token is written.
    let operations =
        2.0 * ((counts.prompt_tokens_computed + counts.new_tokens) * blocks + counts.new_tokens * head) as f64;
    let rates = match engine.weight_form() {
        WeightForm::Int8 => Rates::measure_int8(),
        WeightForm::Packed | WeightForm::Blocks => Rates::measure(session.precision),
    };
    let bound = Bound::of(operations, (counts.steps * engine.weight_bytes()) as f64, rates);
    session.reporter.line(format!(
        "{} new tokens of {sequences} sequences in {seconds:.2} s: {rate:.0} new tokens/s, {} of {} prompt tokens computed; the {} \
         bound is {:.2} s\nprompts alone {prompt_seconds:.2} s, {prompt_rate:.0} tokens/s; the rest is writing, {decode_rate:.0} tokens/s; \
         {:.2} GB at most",
        counts.new_tokens,
        counts.prompt_tokens_computed,
        counts.prompt_tokens_logical,
        bound.name,
        bound.seconds,
        peak as f64 / 1e9
    ));
    let mut result = serde_json::json!({
        "prompt_seconds": prompt_seconds, "prompt_tokens_per_second": prompt_rate, "decode_tokens_per_second": decode_rate,
        "new_tokens_per_second": rate, "seconds": seconds, "new_tokens": counts.new_tokens,
        "prompt_tokens_computed": counts.prompt_tokens_computed, "prompt_tokens_logical": counts.prompt_tokens_logical,
        "steps": counts.steps, "weight_form": engine.weight_words(), "weight_bytes": engine.weight_bytes(), "peak_bytes": peak,
        "precision": session.precision.to_string(), "instruction_set": arithmetic(),
        "threads": rayon::current_num_threads(),
    });
    bound.write(seconds, &mut result);
    session.reporter.result(result);
    Ok(Status::Done)
}

/// Answers all requests; seconds and what was computed.
fn timed(engine: &NativeEngine, requests: &[Request]) -> Result<(f64, Counts)> {
    let start = Instant::now();
    let mut failure = None;
    let counts = engine.generate_counted(requests, &mut |_, answer| match answer {
        Ok(_) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok((start.elapsed().as_secs_f64(), counts)),
    }
}

/// Runs of an operation alone, of which the median counts.
const ALONE_RUNS: usize = 3;

fn train_rate(
    reference: &str,
    batch: usize,
    rows: Option<&Path>,
    config: &TrainConfig,
    session: Session<'_>,
) -> Result<Status> {
    let found = resolve(reference, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let folder = std::env::temp_dir().join(format!("espalier-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let data = packed_rows(&model, batch, rows, config, session)?;
    let (mut counted, mut losses, mut base_bytes) = (Vec::new(), Vec::new(), 0);
    let (mut alone, mut peak) = (None, 0);
    profile::count(Counting::InStep);
    let mut clock = StepClock::start();
    let trained = train(&model, &data.into(), config, &folder, session.stop, &mut |event| match event {
        TrainEvent::Step { step, steps, tokens, .. } if step == steps => alone = Some((tokens, clock.lap())),
        TrainEvent::Step { step, steps, tokens, loss, .. } => {
            losses.push(loss);
            counted.push((tokens, clock.lap()));
            if step + 1 == steps {
                peak = peak_bytes();
                profile::count(Counting::Alone { runs: ALONE_RUNS });
            }
        }
        TrainEvent::Plan(plan) => {
            base_bytes = plan.frozen_bytes;
            let _ = clock.lap();
        }
        // Files are written between steps; they belong to none.
        _ => drop(clock.lap()),
    });
    profile::count(Counting::Off);
    let _ = std::fs::remove_dir_all(&folder);
    trained?;
    // The first step touches every page for the first time.
    counted.drain(..1.min(counted.len()));
    counted.sort_by(|(_, one), (_, other)| one.seconds.total_cmp(&other.seconds));
    let (tokens, step) = counted.get(counted.len() / 2).context("no step was counted")?;
    let (tokens, seconds) = (*tokens, step.seconds);
    let (alone_tokens, alone) = alone.context("the last step was not counted")?;
    let rate = tokens as f64 / seconds;
    // Forward and the gradient of the activations; frozen weights need no gradient of their own.
    let (blocks, head) = matmul_weights(model.config());
    let operations = 4.0 * (tokens * (blocks + head)) as f64;
    // Each direction reads the weights once: a packing of its own, or the same blocks.
    let bytes = match config.base_weights {
        BaseWeights::Packed => 2 * (blocks + head) * if session.precision == Precision::Bf16 { 2 } else { 4 },
        BaseWeights::Stored => 2 * base_bytes,
    };
    let rates = Rates::measure(session.precision);
    let bound = Bound::of(operations, bytes as f64, rates);
    // Steps of real rows differ in their tokens.
    let scale = tokens as f64 / alone_tokens as f64;
    let rows = step.operations(&alone, scale, rates);
    for line in table(&rows) {
        session.reporter.line(line);
    }
    let alone_seconds = scale * alone.counted_seconds();
    session.reporter.line(format!(
        "  {:<26}{:>8.3} s {:>5.1}%   alone {alone_seconds:.3} s: the step takes {:.2} x as long",
        "all operations",
        step.counted_seconds(),
        100.0 * step.counted_seconds() / seconds,
        seconds / alone_seconds,
    ));
    session.reporter.line(format!(
        "{rate:.0} tokens/s, {tokens} real tokens a step of {seconds:.2} s (the {} bound is {:.2} s), {:.2} GB at most",
        bound.name,
        bound.seconds,
        peak as f64 / 1e9
    ));
    let mut result = serde_json::json!({
        "tokens_per_second": rate, "seconds": seconds, "tokens": tokens, "steps": counted.len(), "peak_bytes": peak,
        "base_weights": config.base_weights, "base_bytes": base_bytes, "losses": losses,
        "operations": rows, "operations_seconds": step.counted_seconds(),
        "alone_seconds": alone_seconds, "step_to_alone": seconds / alone_seconds, "page_faults": step.page_faults,
        "precision": session.precision.to_string(), "instruction_set": arithmetic(),
        "threads": rayon::current_num_threads(),
    });
    bound.write(seconds, &mut result);
    session.reporter.result(result);
    Ok(Status::Done)
}

/// Rows for the steps of `config`: those of a file, or made ones.
fn packed_rows(
    model: &Model,
    batch: usize,
    rows: Option<&Path>,
    config: &TrainConfig,
    session: Session<'_>,
) -> Result<Sequences> {
    let Some(file) = rows else {
        let count = batch * config.max_steps.unwrap_or_default();
        return Ok(encode(model, &conversations(model, count, config.max_sequence), config)?);
    };
    let source = DataSource::new(&DataItem::file(file.display().to_string()), vec![file.to_path_buf()]);
    Ok(load(model, &[source], config, session.stop, &mut |_| {})?)
}

/// Conversations whose answers fill about `seq` tokens.
fn conversations(model: &Model, count: usize, seq: usize) -> Vec<Vec<Turn>> {
    let words = ["tree", "branch", "wall", "fruit", "winter", "wire", "summer", "leaf", "root", "spring"];
    (0..count)
        .map(|row| {
            let turn = |role: &str, content: String| Turn { role: role.into(), content };
            let mut answer = String::new();
            let mut index = row;
            while model.tokenizer().encode(&answer, SpecialTokens::AsText).len() + 48 < seq {
                for _ in 0..8 {
                    index = index * 7 + 3;
                    answer.push_str(words[index % words.len()]);
                    answer.push(' ');
                    index %= 1_000_003;
                }
            }
            vec![turn("user", format!("Write list {row}.")), turn("assistant", answer)]
        })
        .collect()
}

/// The largest resident memory of this process so far.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    line.unwrap_or(0) * 1024
}
