//! Scores of given texts: shared contexts, windows, errors.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::ops::ControlFlow;

use common::{engine, options};
use espalier_inference::{EngineError, EngineOptions, NativeEngine, Prompt, Score, ScoreRequest, TokenLogprob};
use espalier_kernels::Precision;

fn scores(engine: &NativeEngine, requests: &[ScoreRequest]) -> Vec<Score> {
    let mut scores = vec![None; requests.len()];
    engine
        .loglikelihood(requests, &mut |index, score| {
            assert!(scores[index].replace(score).is_none());
            ControlFlow::Continue(())
        })
        .unwrap();
    scores.into_iter().map(Option::unwrap).collect()
}

fn tokens(engine: &NativeEngine, text: &str) -> Vec<u32> {
    engine.prompt_tokens(&Prompt::Text(text.to_owned())).unwrap()
}

/// Questions under two heads with four choices each, some of one token, and a few loners.
fn choices(engine: &NativeEngine) -> Vec<ScoreRequest> {
    let head = "Once upon a time, there was a little girl named Lily. She had a dog and a cat. ";
    let mut requests = Vec::new();
    for question in ["She went to the", "She saw a big", "Her dog was", "She went to the big", "Tom had a"] {
        let context = if question.starts_with("Tom") { question.to_owned() } else { format!("{head}{question}") };
        for choice in [" park", " red ball.", "!", " house and then she slept"] {
            let continuation = tokens(engine, choice)[1..].to_vec();
            requests.push(ScoreRequest { context: tokens(engine, &context), continuation });
        }
    }
    requests.push(ScoreRequest { context: Vec::new(), continuation: tokens(engine, "Once")[1..].to_vec() });
    // The same again, later.
    requests.push(requests[2].clone());
    requests
}

#[test]
fn sharing_and_batching_change_nothing() {
    for precision in [Precision::F32, Precision::Bf16] {
        let mut plain = engine(&options(precision));
        let requests = choices(&plain);
        plain.set_prefix_sharing(false);
        let expected: Vec<Score> =
            requests.iter().map(|request| scores(&plain, std::slice::from_ref(request))[0]).collect();
        assert_eq!(scores(&plain, &requests), expected);
        for max_batch_tokens in [1, 5, 64, 512] {
            let engine = engine(&EngineOptions { max_batch_tokens, ..options(precision) });
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| scores(&engine, &requests));
                assert_eq!(found, expected, "{precision}, {max_batch_tokens} rows, {threads} threads");
            }
        }
    }
}

fn distributions(engine: &NativeEngine, requests: &[ScoreRequest], among: usize) -> Vec<Vec<TokenLogprob>> {
    let mut all = vec![None; requests.len()];
    engine
        .top_logprobs(requests, 5, among, &mut |index, answer| {
            assert!(all[index].replace(answer).is_none());
            ControlFlow::Continue(())
        })
        .unwrap();
    all.into_iter().map(Option::unwrap).collect()
}

#[test]
fn the_most_probable_tokens_are_those_of_the_logits() {
    let plain = engine(&options(Precision::Bf16));
    let requests = choices(&plain);
    let expected = distributions(&plain, &requests, usize::MAX);
    for (request, answer) in requests.iter().zip(&expected) {
        let context = if request.context.is_empty() { vec![1] } else { request.context.clone() };
        let text = [context.as_slice(), &request.continuation].concat();
        let logprobs = plain.token_logprobs(&text);
        assert_eq!(answer.len(), request.continuation.len());
        plain
            .logits(&text[..text.len() - 1], &mut |position, logits| {
                let Some(at) = (position + 1).checked_sub(context.len()) else { return };
                let found = &answer[at];
                assert_eq!((found.token, found.logprob), (text[position + 1], logprobs[position]));
                let normalizer = espalier_kernels::ops::log_sum_exp(logits);
                let mut order: Vec<usize> = (0..logits.len()).collect();
                order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
                let top: Vec<(u32, f32)> =
                    order[..5].iter().map(|&token| (token as u32, logits[token] - normalizer)).collect();
                assert_eq!(found.top, top);
            })
            .unwrap();
    }
    for max_batch_tokens in [1, 7, 512] {
        let engine = engine(&EngineOptions { max_batch_tokens, ..options(Precision::Bf16) });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| distributions(&engine, &requests, usize::MAX)), expected);
    }
    let few = distributions(&plain, &requests, 50);
    assert!(few.iter().flatten().all(|at| at.top.len() == 5 && at.top.iter().all(|(token, _)| *token < 50)));
}

#[test]
fn scores_are_sums_of_token_logprobs() {
    let engine = engine(&options(Precision::Bf16));
    for request in choices(&engine) {
        let context = if request.context.is_empty() { vec![1] } else { request.context.clone() };
        let text = [context.as_slice(), &request.continuation].concat();
        let logprobs = engine.token_logprobs(&text);
        assert_eq!(logprobs.len(), text.len() - 1);
        let sum: f64 = logprobs[context.len() - 1..].iter().map(|&logprob| f64::from(logprob)).sum();
        assert_eq!(scores(&engine, &[request])[0].logprob.to_bits(), sum.to_bits());
    }
}

#[test]
fn long_contexts_lose_their_beginning() {
    let engine = engine(&EngineOptions { context: Some(16), ..options(Precision::F32) });
    let context: Vec<u32> = (300..340).collect();
    let continuation = vec![400, 401, 402];
    let long = scores(&engine, &[ScoreRequest { context: context.clone(), continuation: continuation.clone() }])[0];
    // 16 rows: 14 of the context and two of the continuation.
    let cut = ScoreRequest { context: context[26..].to_vec(), continuation };
    assert_eq!(scores(&engine, &[cut])[0], long);
}

#[test]
fn long_texts_are_scored_in_windows() {
    let window = 16;
    let engine = engine(&EngineOptions { context: Some(window), ..options(Precision::F32) });
    let text = tokens(
        &engine,
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog.",
    );
    assert!(text.len() > 2 * window);
    let logprobs = engine.token_logprobs(&text);
    assert_eq!(logprobs.len(), text.len() - 1);
    // The first window knows everything before it.
    assert_eq!(logprobs[..window], engine.token_logprobs(&text[..=window]));
    // The next window starts half a window before its first new token.
    let second = engine.token_logprobs(&text[window + 1 - window / 2..]);
    assert_eq!(logprobs[window].to_bits(), second[window / 2 - 1].to_bits());
    assert!(logprobs.iter().all(|logprob| logprob.is_finite() && *logprob <= 0.0));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let engine = engine(&EngineOptions { context: Some(16), ..options(Precision::F32) });
    let refused =
        |request: ScoreRequest| engine.loglikelihood(&[request], &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    let empty = ScoreRequest { context: vec![1], continuation: vec![] };
    assert!(matches!(refused(empty), EngineError::EmptyContinuation { index: 0 }));
    let long = ScoreRequest { context: vec![1], continuation: vec![5; 17] };
    assert!(matches!(refused(long), EngineError::TextTooLong { tokens: 17, context: 16 }));
    let unknown = ScoreRequest { context: vec![9999], continuation: vec![5] };
    assert!(matches!(refused(unknown), EngineError::UnknownToken { token: 9999, .. }));
    let error = engine.logits(&[5; 17], &mut |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("17 tokens"), "{error}");
    assert!(engine.token_logprobs(&[1, 9999, 3]).iter().all(|logprob| logprob.is_nan()));
    assert!(engine.token_logprobs(&[1]).is_empty());
}

#[test]
fn a_break_ends_the_call() {
    let engine = engine(&EngineOptions { max_batch_tokens: 16, ..options(Precision::F32) });
    let mut seen = 0;
    engine
        .loglikelihood(&choices(&engine), &mut |_, _| {
            seen += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(seen, 1);
}
