//! Adapters side by side in one batch: each request is answered as if its adapter were the only one.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use common::{adapter, answers, mixed_requests, options, stories, text};
use espalier_inference::{
    Answer, Constraint, EngineError, EngineMemory, EngineOptions, Event, NativeEngine, Prompt, Request, Service,
    ServiceOptions,
};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Message};

const NAMES: [Option<&str>; 3] = [None, Some("poet"), Some("judge")];

fn adapters() -> (LoraAdapter, LoraAdapter) {
    let model = stories();
    let template = "{% for message in messages %}Judge {{ message.content }}: {% endfor %}".to_owned();
    (adapter(&model, 4, 1), LoraAdapter { chat_template: Some(template), ..adapter(&model, 9, 77) })
}

fn engine(options: &EngineOptions) -> NativeEngine {
    let (poet, judge) = adapters();
    NativeEngine::load_with_adapters(&stories(), &[("poet", &poet), ("judge", &judge)], options).unwrap()
}

/// Each kind of request for the base and for each adapter: with common heads, constraints, log-probabilities of the prompt.
fn requests() -> Vec<Request> {
    let mut kinds = mixed_requests();
    for (index, request) in kinds.iter_mut().enumerate() {
        request.constraint = match index % 6 {
            1 => Some(Arc::new(Constraint::Regex("[a-z ]{5,20}".to_owned()))),
            4 => Some(Arc::new(Constraint::JsonObject)),
            _ => None,
        };
        request.prompt_logprobs = (index % 5 == 2).then_some(index % 3);
    }
    kinds.push(Request { prompt_logprobs: Some(1), ..text("The dog and the cat went home", 0) });
    kinds.push(Request::new(Prompt::Chat(vec![Message::new("user", "Tell me a story.")]), 9));
    let named = |request: &Request| NAMES.map(|name| Request { adapter: name.map(str::to_owned), ..request.clone() });
    kinds.iter().flat_map(named).collect()
}

/// Answers, one request at a time, of engines that were loaded with one adapter or none.
fn alone(requests: &[Request], precision: Precision) -> Vec<Answer> {
    let (poet, judge) = adapters();
    let options = EngineOptions { max_sequences: 1, ..options(precision) };
    let engines = [None, Some(&poet), Some(&judge)].map(|one| NativeEngine::load(&stories(), one, &options).unwrap());
    let answer = |request: &Request| {
        let engine = &engines[NAMES.iter().position(|name| *name == request.adapter.as_deref()).unwrap()];
        answers(engine, &[Request { adapter: None, ..request.clone() }]).remove(0).unwrap()
    };
    requests.iter().map(answer).collect()
}

#[test]
fn neighbours_of_other_adapters_change_nothing() {
    let requests = requests();
    for precision in [Precision::F32, Precision::Bf16] {
        let expected = alone(&requests, precision);
        for three in expected.chunks(3).take(6) {
            assert!(
                three[0].logprobs != three[1].logprobs && three[1].logprobs != three[2].logprobs,
                "they must matter"
            );
        }
        for (max_sequences, max_batch_tokens) in [(1, 512), (7, 40), (64, 512)] {
            let engine = engine(&EngineOptions { max_sequences, max_batch_tokens, ..options(precision) });
            for threads in [1, 2] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found: Vec<Answer> =
                    pool.install(|| answers(&engine, &requests).into_iter().map(Result::unwrap).collect());
                for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(
                        found, expected,
                        "{precision}, {max_sequences} sequences, {threads} threads, request {at}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_service_mixes_adapters_and_shares_no_prefix_across_them() {
    let requests = requests();
    let expected = alone(&requests, Precision::Bf16);
    for max_sequences in [1, 7, 64] {
        let engine = engine(&EngineOptions { max_sequences, max_batch_tokens: 64, ..options(Precision::Bf16) });
        let service = Service::start(Arc::new(engine), ServiceOptions::default());
        for _ in 0..2 {
            let (sender, receiver) = mpsc::channel();
            for (index, request) in requests.iter().enumerate() {
                let sender = sender.clone();
                let on_event = move |event| {
                    match event {
                        Event::Token { .. } => {}
                        Event::Done(answer) => sender.send((index, answer)).unwrap(),
                        Event::Failed(error) => panic!("{error}"),
                    }
                    ControlFlow::Continue(())
                };
                service.submit(request.clone(), index as u64 % 4, Box::new(on_event)).unwrap();
            }
            drop(sender);
            let mut count = 0;
            for (index, answer) in receiver {
                assert_eq!(answer, expected[index], "{max_sequences} sequences, request {index}");
                count += 1;
            }
            assert_eq!(count, requests.len());
        }
    }
}

#[test]
fn an_adapter_that_comes_later_answers_as_if_it_had_been_there() {
    let (poet, judge) = adapters();
    let requests = requests();
    let at_once = engine(&options(Precision::Bf16));
    let expected: Vec<Answer> = answers(&at_once, &requests).into_iter().map(Result::unwrap).collect();
    let plain = NativeEngine::load(&stories(), None, &options(Precision::Bf16)).unwrap();
    let identity = plain.identity().to_owned();
    let mut service = Service::start(Arc::new(plain), ServiceOptions::default());
    let changed = service.change(|engine| {
        engine.add_adapter(&stories(), "poet", &poet).unwrap();
        engine.add_adapter(&stories(), "judge", &judge).unwrap();
        assert_eq!(engine.identity(), at_once.identity());
        let again = engine.add_adapter(&stories(), "poet", &judge).unwrap_err().to_string();
        assert_eq!(again, "option adapter: two are called \"poet\"; give each a name of its own");
    });
    assert!(changed.is_some() && service.engine().identity() != identity);
    let found = answers(service.engine(), &requests);
    for (at, (found, expected)) in found.into_iter().zip(&expected).enumerate() {
        assert_eq!(found.unwrap(), *expected, "request {at}");
    }
    let (sender, receiver) = mpsc::channel();
    let on_event = move |event| match event {
        Event::Done(answer) => {
            sender.send(answer).unwrap();
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Continue(()),
    };
    service.submit(requests[1].clone(), 0, Box::new(on_event)).unwrap();
    assert_eq!(receiver.recv().unwrap(), expected[1], "it goes on after a change");
}

#[test]
fn an_engine_takes_no_adapter_that_its_memory_or_another_holder_forbids() {
    let (poet, _) = adapters();
    let plain = NativeEngine::load(&stories(), None, &options(Precision::F32)).unwrap();
    // The least that it takes, found by the words of the refusal.
    let bounded = |memory| {
        NativeEngine::load(
            &stories(),
            None,
            &EngineOptions { memory: Some(EngineMemory::new(memory)), ..options(Precision::F32) },
        )
    };
    let words = bounded(1).unwrap_err().to_string();
    let least: u64 = words.split("less than the ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let mut tight = bounded(least).unwrap();
    let error = tight.add_adapter(&stories(), "poet", &poet).unwrap_err();
    assert!(matches!(error, EngineError::Option { option: "memory", .. }), "{error}");
    assert_eq!((tight.adapters().count(), tight.identity()), (0, plain.identity()));
    let held = Arc::new(plain);
    let mut service = Service::start(Arc::clone(&held), ServiceOptions::default());
    assert!(service.change(|_| ()).is_none());
    drop(held);
    assert!(service.change(|_| ()).is_some());
}

#[test]
fn what_names_no_adapter_of_the_engine_is_refused() {
    let (poet, _) = adapters();
    let ask = |engine: &NativeEngine| {
        let request = Request { adapter: Some("painter".to_owned()), ..text("Once", 3) };
        let error = answers(engine, &[request]).remove(0).unwrap_err();
        assert!(matches!(error, EngineError::UnknownAdapter { .. }));
        error.to_string()
    };
    let several = engine(&options(Precision::F32));
    assert_eq!(several.adapters().collect::<Vec<_>>(), ["poet", "judge"]);
    assert_eq!(ask(&several), "the engine has no adapter \"painter\"; it has \"poet\", \"judge\"");
    let one = NativeEngine::load(&stories(), Some(&poet), &options(Precision::F32)).unwrap();
    assert_eq!(ask(&one), "the engine has no adapter \"painter\"; it has none that can be named");
}

#[test]
fn adapters_that_cannot_stand_side_by_side_are_refused() {
    let (poet, mut dora) = adapters();
    let load = |adapters: &[(&str, &LoraAdapter)]| {
        NativeEngine::load_with_adapters(&stories(), adapters, &options(Precision::F32)).unwrap_err().to_string()
    };
    assert_eq!(
        load(&[("poet", &poet), ("poet", &poet)]),
        "option adapter: two are called \"poet\"; give each a name of its own"
    );
    for module in dora.modules.values_mut() {
        module.magnitude = Some(vec![1.0; module.outputs]);
    }
    let error = load(&[("poet", &poet), ("dora", &dora)]);
    assert!(error.contains("\"dora\" is a DoRA adapter") && error.contains("use it alone"), "{error}");
}

#[test]
fn identities_tell_adapters_apart_and_not_their_order() {
    let (poet, judge) = adapters();
    let identity = |adapters: &[(&str, &LoraAdapter)]| {
        NativeEngine::load_with_adapters(&stories(), adapters, &options(Precision::F32)).unwrap().identity().to_owned()
    };
    let both = identity(&[("poet", &poet), ("judge", &judge)]);
    assert_eq!(both, identity(&[("judge", &judge), ("poet", &poet)]));
    let mut all = [
        both,
        identity(&[("judge", &poet), ("poet", &judge)]),
        identity(&[("poet", &poet)]),
        identity(&[]),
        NativeEngine::load(&stories(), Some(&poet), &options(Precision::F32)).unwrap().identity().to_owned(),
    ];
    assert_eq!(all[3], common::engine(&options(Precision::F32)).identity());
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
}
