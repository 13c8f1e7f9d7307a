//! How fast the native engine writes: `generate_rate MODEL [SEQUENCES] [PROMPT] [NEW] [SHARED] [f32|bf16|blocks|int8]`.
//!
//! Each sequence reads PROMPT tokens (of which the first SHARED are the same everywhere) and writes NEW; end-of-generation is
//! ignored.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use espalier_inference::{Counts, EngineError, EngineOptions, NativeEngine, Prompt, Request, Sampling, WeightForm};
use espalier_kernels::Precision;
use espalier_model::Model;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments
        .first()
        .ok_or("usage: generate_rate MODEL [SEQUENCES] [PROMPT] [NEW] [SHARED] [f32|bf16|blocks|int8]")?;
    let number = |index: usize, default: usize| -> Result<usize, std::num::ParseIntError> {
        arguments.get(index).map_or(Ok(default), |text| text.parse())
    };
    let (sequences, prompt, new, shared) = (number(1, 32)?, number(2, 128)?, number(3, 64)?, number(4, 0)?);
    let word = arguments.get(5).map_or("bf16", String::as_str);
    let (weight_form, precision) = match word {
        "blocks" => (WeightForm::Blocks, Precision::Bf16),
        "int8" => (WeightForm::Int8, Precision::Bf16),
        word => (WeightForm::Packed, word.parse()?),
    };

    let start = Instant::now();
    let model = Model::open(Path::new(path))?;
    let options = EngineOptions { precision, weight_form, max_sequences: sequences, ..EngineOptions::default() };
    let mut engine = NativeEngine::load(&model, None, &options)?;
    println!(
        "loaded in {:.2} s, {:.0} MB of weights",
        start.elapsed().as_secs_f64(),
        engine.weight_bytes() as f64 / 1e6
    );

    engine.set_ignore_end(true);
    let vocabulary = engine.tokenizer().vocabulary();
    let requests = |new: usize| -> Vec<Request> {
        let token = |sequence: usize, position: usize| {
            let sequence = if position < shared { 0 } else { sequence + 1 };
            // Ordinary tokens, different in each sequence.
            ((sequence * 7919 + position * 104_729) % (vocabulary - 300) + 300) as u32
        };
        (0..sequences)
            .map(|sequence| Request {
                seed: sequence as u64,
                sampling: Sampling::at_temperature(1.0),
                ..Request::new(Prompt::Tokens((0..prompt).map(|position| token(sequence, position)).collect()), new)
            })
            .collect()
    };
    let run = |requests: &[Request]| -> Result<(f64, Counts), EngineError> {
        let start = Instant::now();
        let mut failure = None;
        let counts = engine.generate_counted(requests, &mut |_, answer| match answer {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok((start.elapsed().as_secs_f64(), counts)), Err)
    };
    run(&requests(1)[..1])?;
    let (reading, _) = run(&requests(1))?;
    let (whole, counts) = run(&requests(new))?;
    let prompts = counts.prompt_tokens_computed;
    println!(
        "prompts: {} tokens, {prompts} computed, in {reading:.2} s: {:.0} tokens/s",
        counts.prompt_tokens_logical,
        prompts as f64 / reading
    );
    println!(
        "whole: {} new tokens, {} steps, in {whole:.2} s: {:.0} new tokens/s; decode alone {:.0} tokens/s",
        counts.new_tokens,
        counts.steps,
        counts.new_tokens as f64 / whole,
        counts.new_tokens as f64 / (whole - reading)
    );
    Ok(())
}
