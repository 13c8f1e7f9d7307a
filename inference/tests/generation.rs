//! Generated text: what it says, and that nothing but the request decides it.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::ops::ControlFlow;

use common::{answers, engine, mixed_requests, options, text};
use espalier_inference::{
    Answer, EngineError, EngineMemory, EngineOptions, Finish, Overflow, Prompt, Request, Sampling, ScoreRequest,
};
use espalier_kernels::Precision;
use espalier_model::{Message, SpecialTokens};

const STORY: &str = "Once upon a time, there was a little girl named Lily.";

fn unwrap_all(answers: Vec<Result<Answer, EngineError>>) -> Vec<Answer> {
    answers.into_iter().map(Result::unwrap).collect()
}

#[test]
fn the_story_begins_as_trained() {
    for precision in [Precision::F32, Precision::Bf16] {
        let engine = engine(&options(precision));
        let found = unwrap_all(answers(&engine, &[text("", 60), text("Once upon a time", 50)]));
        assert!(found[0].text.trim_start().starts_with(STORY), "{precision}: {:?}", found[0].text);
        assert!(format!("Once upon a time{}", found[1].text).starts_with(STORY), "{precision}: {:?}", found[1].text);
        assert_eq!((found[0].prompt_tokens, found[0].tokens.len(), found[0].finish), (1, 60, Finish::Length));
    }
}

#[test]
fn batch_size_and_limits_change_nothing() {
    let requests = mixed_requests();
    for precision in [Precision::F32, Precision::Bf16] {
        let one_by_one = EngineOptions { max_sequences: 1, ..options(precision) };
        let expected = unwrap_all(answers(&engine(&one_by_one), &requests));
        for max_sequences in [1, 3, 16] {
            for max_batch_tokens in [1, 16, 512] {
                let options = EngineOptions { max_sequences, max_batch_tokens, ..options(precision) };
                let found = unwrap_all(answers(&engine(&options), &requests));
                assert_eq!(found, expected, "{precision}, {max_sequences} sequences, {max_batch_tokens} tokens");
            }
        }
    }
}

#[test]
fn requests_that_follow_from_answers_are_answered_as_others() {
    let engine =
        espalier_inference::Engine::Native(engine(&EngineOptions { max_sequences: 5, ..options(Precision::Bf16) }));
    let espalier_inference::Engine::Native(native) = &engine else { unreachable!() };
    let requests = mixed_requests();
    let expected = unwrap_all(answers(native, &requests));
    // The first three, and with each answer two more.
    let mut rest = requests[3..].iter().cloned();
    let mut found: Vec<Option<Answer>> = vec![None; requests.len()];
    let mut follow = |index: usize, answer: Result<Answer, EngineError>| {
        assert!(found[index].replace(answer.unwrap()).is_none());
        ControlFlow::Continue(rest.by_ref().take(2).collect())
    };
    engine.generate_following(requests[..3].to_vec(), &mut follow, &mut |_| {}).unwrap();
    assert_eq!(found.into_iter().collect::<Option<Vec<_>>>().unwrap(), expected);
    // An end is one, whatever still waits.
    let mut count = 0;
    let mut once = |_: usize, _: Result<Answer, EngineError>| {
        count += 1;
        ControlFlow::Break(())
    };
    engine.generate_following(requests, &mut once, &mut |_| {}).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn order_and_neighbours_change_nothing() {
    let engine = engine(&options(Precision::Bf16));
    let requests = mixed_requests();
    let expected = unwrap_all(answers(&engine, &requests));
    let reversed: Vec<Request> = requests.iter().rev().cloned().collect();
    let mut found = unwrap_all(answers(&engine, &reversed));
    found.reverse();
    assert_eq!(found, expected);
    for (request, expected) in requests.iter().zip(&expected) {
        assert_eq!(answers(&engine, std::slice::from_ref(request)).remove(0).unwrap(), *expected);
    }
}

#[test]
fn threads_change_nothing() {
    let requests = mixed_requests();
    let engine = engine(&options(Precision::Bf16));
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| unwrap_all(answers(&engine, &requests)))
    };
    let expected = with_threads(1);
    for threads in [2, 3] {
        assert_eq!(with_threads(threads), expected, "{threads} threads");
    }
}

#[test]
fn prefix_sharing_changes_nothing() {
    let requests = mixed_requests();
    for precision in [Precision::F32, Precision::Bf16] {
        let mut engine = engine(&EngineOptions { max_sequences: 4, max_batch_tokens: 64, ..options(precision) });
        let with = unwrap_all(answers(&engine, &requests));
        engine.set_prefix_sharing(false);
        assert_eq!(unwrap_all(answers(&engine, &requests)), with, "{precision}");
    }
}

#[test]
fn seeds_decide_sampled_texts() {
    let engine = engine(&options(Precision::Bf16));
    let sampled = |seed| Request { sampling: Sampling::at_temperature(1.0), seed, ..text("One day", 30) };
    let found = unwrap_all(answers(&engine, &[sampled(1), sampled(2), sampled(1)]));
    assert_eq!(found[0], found[2]);
    assert_ne!(found[0].text, found[1].text);
}

#[test]
fn logprobs_agree_with_scoring() {
    let engine = engine(&options(Precision::Bf16));
    let request = Request { top_logprobs: 3, ..text("One day, Lily", 20) };
    let answer = answers(&engine, std::slice::from_ref(&request)).remove(0).unwrap();
    assert_eq!(answer.logprobs.len(), answer.tokens.len());
    for (chosen, token) in answer.logprobs.iter().zip(&answer.tokens) {
        assert_eq!(chosen.token, *token);
        assert_eq!(chosen.top.len(), 3);
        assert_eq!(chosen.top[0], (chosen.token, chosen.logprob), "greedy takes the best");
    }
    let context = engine.prompt_tokens(&request.prompt).unwrap();
    let mut score = None;
    engine
        .loglikelihood(&[ScoreRequest { context, continuation: answer.tokens.clone() }], &mut |_, found| {
            score = Some(found);
            ControlFlow::Continue(())
        })
        .unwrap();
    let score = score.unwrap();
    let sum: f64 = answer.logprobs.iter().map(|chosen| f64::from(chosen.logprob)).sum();
    assert_eq!(score.logprob.to_bits(), sum.to_bits());
    assert!(score.greedy);
}

#[test]
fn stop_strings_cut_the_text() {
    let engine = engine(&options(Precision::F32));
    let stop = |stop: &[&str]| Request { stop: stop.iter().map(|&s| s.to_owned()).collect(), ..text("", 60) };
    let found = unwrap_all(answers(&engine, &[stop(&["named Lily"]), stop(&[", there", "girl"]), stop(&["zebra"])]));
    assert_eq!(found[0].text.trim_start(), "Once upon a time, there was a little girl ");
    assert_eq!(found[0].finish, Finish::Stop);
    assert_eq!(found[1].text.trim_start(), "Once upon a time");
    assert_eq!(found[2].finish, Finish::Length);
}

#[test]
fn stop_tokens_end_the_answer_before_them() {
    let engine = engine(&options(Precision::F32));
    let whole = answers(&engine, &[text("Once upon a time", 30)]).remove(0).unwrap();
    let token = whole.tokens[12];
    let first = whole.tokens.iter().position(|&other| other == token).unwrap();
    let request = Request { stop_tokens: vec![token], ..text("Once upon a time", 30) };
    let found = answers(&engine, &[request]).remove(0).unwrap();
    assert_eq!((found.finish, found.tokens.as_slice()), (Finish::Stop, &whole.tokens[..first]));
}

#[test]
fn bias_and_penalties_act_on_the_answer() {
    let engine = engine(&options(Precision::F32));
    let with = |sampling| Request { sampling, ..text("One day", 40) };
    let plain = answers(&engine, &[with(Sampling::GREEDY)]).remove(0).unwrap();
    let banned = plain.tokens[0];
    let found = unwrap_all(answers(
        &engine,
        &[
            with(Sampling { logit_bias: vec![(banned, -100.0)], ..Sampling::GREEDY }),
            with(Sampling { presence_penalty: 100.0, ..Sampling::GREEDY }),
            with(Sampling { frequency_penalty: 100.0, ..Sampling::GREEDY }),
        ],
    ));
    assert!(!found[0].tokens.contains(&banned));
    for answer in &found[1..] {
        let mut different = answer.tokens.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), answer.tokens.len(), "no token comes twice: {:?}", answer.text);
    }
    let unknown = with(Sampling { logit_bias: vec![(512, 1.0)], ..Sampling::GREEDY });
    let error = answers(&engine, &[unknown]).remove(0).unwrap_err();
    assert!(matches!(error, EngineError::UnknownToken { token: 512, vocabulary: 512 }), "{error}");
}

#[test]
fn alternatives_of_a_prompt_compute_it_once() {
    let engine = engine(&options(Precision::Bf16));
    let request = Request { sampling: Sampling::at_temperature(1.0), seed: 5, ..text(&STORY.repeat(3), 20) };
    let requests: Vec<Request> = request.alternatives(6).collect();
    let mut texts = vec![String::new(); 6];
    let counts = engine
        .generate_counted(&requests, &mut |index, answer| {
            texts[index] = answer.unwrap().text;
            ControlFlow::Continue(())
        })
        .unwrap();
    let prompt = engine.prompt_tokens(&request.prompt).unwrap().len();
    assert_eq!(counts.prompt_tokens_computed, prompt + 5, "each further one computes its last token alone");
    assert_eq!(texts[0], answers(&engine, &[request]).remove(0).unwrap().text);
    assert_eq!(texts.iter().collect::<std::collections::HashSet<_>>().len(), 6);
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_alone() {
    let engine = engine(&EngineOptions { context: Some(32), ..options(Precision::F32) });
    let long = Request::new(Prompt::Tokens(vec![5; 32]), 4);
    let unknown = Request::new(Prompt::Tokens(vec![1, 512]), 4);
    let mut found = answers(&engine, &[long, text("Once", 100), unknown, text("Once", 0)]);
    assert_eq!(found[3].as_ref().unwrap().tokens.len(), 0);
    let error = found.remove(2).unwrap_err();
    assert!(matches!(error, EngineError::UnknownToken { token: 512, vocabulary: 512 }), "{error}");
    let fitting = found.remove(1).unwrap();
    assert_eq!(fitting.prompt_tokens + fitting.tokens.len(), 32);
    assert_eq!(fitting.finish, Finish::Length);
    let error = found.remove(0).unwrap_err().to_string();
    assert!(error.contains("32 tokens") && error.contains("holds 32") && error.contains("at least 1 token"), "{error}");
}

#[test]
fn a_prompt_may_be_cut_to_fit() {
    let engine = engine(&EngineOptions { context: Some(32), ..options(Precision::F32) });
    let bos = engine.tokenizer().bos().unwrap();
    let prompt: Vec<u32> = std::iter::once(bos).chain(300..359).collect();
    let with = |overflow, prompt: Vec<u32>| Request { overflow, ..Request::new(Prompt::Tokens(prompt), 8) };
    let left: Vec<u32> = [&prompt[..1], &prompt[37..]].concat();
    let middle: Vec<u32> = [&prompt[..12], &prompt[48..]].concat();
    let requests = [
        with(Overflow::TruncateLeft, prompt.clone()),
        with(Overflow::TruncateMiddle, prompt.clone()),
        with(Overflow::Refuse, prompt),
        with(Overflow::Refuse, left),
        with(Overflow::Refuse, middle),
    ];
    let mut found: Vec<_> = requests.iter().map(|_| None).collect();
    let counts = engine
        .generate_counted(&requests, &mut |index, answer| {
            found[index] = Some(answer);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(counts.prompts_cut, 2);
    let mut found: Vec<Result<Answer, EngineError>> = found.into_iter().map(Option::unwrap).collect();
    assert!(found.remove(2).unwrap_err().is_prompt_too_long());
    let found = unwrap_all(found);
    for (cut, expected) in [(&found[0], &found[2]), (&found[1], &found[3])] {
        assert_eq!((cut.prompt_tokens, cut.prompt_tokens_cut, expected.prompt_tokens_cut), (24, 36, 0));
        assert_eq!(cut.text, expected.text);
    }
}

#[test]
fn a_break_ends_the_call() {
    let engine = engine(&EngineOptions { max_sequences: 2, ..options(Precision::Bf16) });
    let requests: Vec<Request> = (0..20).map(|_| text("Once", 5)).collect();
    let mut seen = 0;
    engine
        .generate(&requests, &mut |_, _| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 3);
    engine.generate(&[], &mut |_, _| ControlFlow::Continue(())).unwrap();
}

#[test]
fn conversations_are_rendered_with_one_bos() {
    let engine = engine(&options(Precision::F32));
    let messages = [Message::new("user", "Tell me a story.")];
    let tokens = engine.render_chat(&messages).unwrap();
    assert_eq!(tokens.iter().filter(|&&token| Some(token) == engine.tokenizer().bos()).count(), 1);
    let answer = answers(&engine, &[Request::new(Prompt::Chat(messages.to_vec()), 8)]).remove(0).unwrap();
    assert_eq!(answer.prompt_tokens, tokens.len());
}

#[test]
fn tokens_are_taken_as_they_are() {
    let engine = engine(&options(Precision::F32));
    let mut tokens = vec![engine.tokenizer().bos().unwrap()];
    tokens.extend(engine.tokenizer().encode("Once upon a time", SpecialTokens::AsText));
    let found = unwrap_all(answers(&engine, &[Request::new(Prompt::Tokens(tokens), 20), text("Once upon a time", 20)]));
    assert_eq!(found[0], found[1]);
}

#[test]
fn options_out_of_range_are_refused() {
    let model = common::stories();
    let refused = |options: &EngineOptions| {
        espalier_inference::NativeEngine::load(&model, None, options).unwrap_err().to_string()
    };
    assert!(refused(&EngineOptions { context: Some(513), ..EngineOptions::default() }).contains("513"));
    assert!(refused(&EngineOptions { max_sequences: 0, ..EngineOptions::default() }).contains("max_sequences"));
    assert!(refused(&EngineOptions { max_batch_tokens: 0, ..EngineOptions::default() }).contains("max_batch_tokens"));
}

#[test]
fn texts_wait_for_memory_and_those_that_never_fit_are_refused() {
    let model = common::stories();
    let with = |memory| {
        let options =
            EngineOptions { memory: Some(EngineMemory::new(memory)), max_batch_tokens: 64, ..options(Precision::F32) };
        espalier_inference::NativeEngine::load(&model, None, &options)
    };
    let error = with(1).unwrap_err().to_string();
    let least: u64 = error.split(' ').filter_map(|word| word.parse().ok()).find(|&bytes| bytes > 1).expect(&error);
    assert!(with(least - 1).is_err());
    // One page holds 64 positions; this leaves two of them for all texts together.
    let engine = with(least + 150_000).unwrap();
    let mut requests = mixed_requests();
    requests.push(Request::new(Prompt::Tokens(vec![5; 120]), 20));
    let mut found = answers(&engine, &requests);
    let error = found.pop().unwrap().unwrap_err();
    assert!(matches!(error, EngineError::TooLargeForMemory { tokens: 140, .. }), "{error}");
    requests.pop();
    let expected = answers(&common::engine(&options(Precision::F32)), &requests);
    assert_eq!(unwrap_all(found), unwrap_all(expected));
}

#[test]
fn the_longest_answers_begin_first() {
    let mut engine = engine(&EngineOptions { max_sequences: 4, ..options(Precision::Bf16) });
    engine.set_ignore_end(true);
    let with = |at: u32, max_tokens| Request::new(Prompt::Tokens(vec![300 + at]), max_tokens);
    let mut requests: Vec<Request> = (0..24).map(|at| with(at, 8)).collect();
    requests.push(with(24, 64));
    let counts = engine.generate_counted(&requests, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(counts.steps, 64, "the others are written beside it, not before it");
}

#[test]
fn identity_names_model_and_precision() {
    let f32 = engine(&options(Precision::F32));
    let bf16 = engine(&options(Precision::Bf16));
    assert!(f32.identity().ends_with("-f32") && bf16.identity().ends_with("-bf16-i16-keys"), "{}", bf16.identity());
    assert_eq!(f32.identity().strip_suffix("f32"), bf16.identity().strip_suffix("bf16-i16-keys"));
}

#[test]
fn a_shared_head_is_computed_once() {
    let head: Vec<u32> = (0..100).map(|i| 260 + i * 7 % 250).collect();
    let requests: Vec<Request> =
        (0..20).map(|i| Request::new(Prompt::Tokens([head.as_slice(), &[300 + i, 400, 401]].concat()), 6)).collect();
    let mut engine = engine(&EngineOptions { max_sequences: 4, max_batch_tokens: 64, ..options(Precision::Bf16) });
    engine.set_ignore_end(true);
    let mut count = |sharing| {
        engine.set_prefix_sharing(sharing);
        engine.generate_counted(&requests, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let shared = count(true);
    assert_eq!(shared.prompt_tokens_computed, 100 + 20 * 3);
    assert_eq!((shared.prompt_tokens_logical, shared.new_tokens), (20 * 103, 20 * 6));
    assert_eq!(count(false).prompt_tokens_computed, 20 * 103);
}
