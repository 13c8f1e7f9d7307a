//! The 260K model and small shorthands for the tests.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::{Answer, EngineError, EngineOptions, NativeEngine, Prompt, Request, Sampling};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, LoraModule, Model};

/// The trained llama model of 260K parameters.
pub(crate) fn stories() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

/// Options in a precision, otherwise the defaults.
pub(crate) fn options(precision: Precision) -> EngineOptions {
    EngineOptions { precision, ..EngineOptions::default() }
}

/// The 260K model in an engine.
pub(crate) fn engine(options: &EngineOptions) -> NativeEngine {
    NativeEngine::load(&stories(), None, options).unwrap()
}

/// An adapter on all modules of all layers, of an effect that cannot be overlooked; the same for the same seed.
pub(crate) fn adapter(model: &Model, rank: usize, seed: u64) -> LoraAdapter {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u32 << 24) as f32 - 0.5) * 0.3
    };
    let mut modules = BTreeMap::new();
    for layer in 0..model.config().layers {
        for module in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
            // One module of a fused matrix without a branch.
            if layer == 1 && module == "attn_k" {
                continue;
            }
            let name = format!("blk.{layer}.{module}");
            let tensor = model.tensor(&format!("{name}.weight")).unwrap();
            let (outputs, inputs) = (tensor.info().rows, tensor.info().columns);
            let a = (0..rank * inputs).map(|_| next()).collect();
            let b = (0..rank * outputs).map(|_| next()).collect();
            modules.insert(name, LoraModule { a, b, inputs, outputs, rank, alpha: 8.0, magnitude: None });
        }
    }
    LoraAdapter { rslora: false, base_model: String::new(), base_sha256: None, chat_template: None, modules }
}

/// All answers in the order of their requests.
pub(crate) fn answers(engine: &NativeEngine, requests: &[Request]) -> Vec<Result<Answer, EngineError>> {
    let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
    engine
        .generate(requests, &mut |index, answer| {
            assert!(answers[index].replace(answer).is_none(), "one answer a request");
            ControlFlow::Continue(())
        })
        .unwrap();
    answers.into_iter().map(|answer| answer.expect("an answer for every request")).collect()
}

/// A request to continue a text.
pub(crate) fn text(prompt: &str, max_tokens: usize) -> Request {
    Request::new(Prompt::Text(prompt.to_owned()), max_tokens)
}

/// Requests of many kinds: short and long, greedy and sampled, with common heads and duplicates.
pub(crate) fn mixed_requests() -> Vec<Request> {
    let head =
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog. ";
    let other = "Tom and Ben were good friends. They liked to build towers of blocks and to run in the big garden. ";
    let mut requests: Vec<Request> = ["One day", "The dog", "She saw", "The sun", "A big", "One day, she"]
        .iter()
        .flat_map(|tail| [format!("{head}{tail}"), format!("{other}{tail}")])
        .map(|prompt| text(&prompt, 24))
        .collect();
    requests.extend([text("Once upon a time", 40), text("", 40), text("The", 1), text(head, 24), text(head, 24)]);
    for (index, request) in requests.iter_mut().enumerate() {
        request.seed = index as u64;
        request.top_logprobs = index % 3;
        request.sampling = match index % 7 {
            0 => Sampling::GREEDY,
            1 => Sampling::at_temperature(1.0),
            2 => Sampling { top_k: 20, top_p: 0.9, ..Sampling::at_temperature(0.8) },
            3 => Sampling { min_p: 0.05, repetition_penalty: 1.2, ..Sampling::at_temperature(1.2) },
            4 => Sampling { frequency_penalty: 0.4, presence_penalty: 0.3, ..Sampling::at_temperature(0.9) },
            5 => Sampling { presence_penalty: 1.5, logit_bias: vec![(31, -4.0), (400, 2.0)], ..Sampling::GREEDY },
            _ => Sampling { repetition_penalty: 1.3, ..Sampling::GREEDY },
        };
    }
    requests
}
