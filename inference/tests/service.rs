//! The engine as a service: what it writes is what a call for a list writes, and nobody waits for ever.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{answers, engine, mixed_requests, options, text};
use espalier_inference::{
    Answer, Cancel, EngineError, EngineMemory, EngineOptions, Event, NativeEngine, Prompt, Refused, Request, Service,
    ServiceOptions, TokenLogprob,
};
use espalier_kernels::Precision;

/// Nothing here takes longer, unless somebody waits for ever.
const LONGEST: Duration = Duration::from_mins(2);

fn service(options: &EngineOptions) -> (Arc<NativeEngine>, Service) {
    let engine = Arc::new(engine(options));
    (Arc::clone(&engine), Service::start(engine, ServiceOptions::default()))
}

/// Everything that came of a request.
#[derive(Debug)]
struct Told {
    text: String,
    tokens: Vec<TokenLogprob>,
    end: Result<Answer, EngineError>,
}

/// Submits a request; the receiver gets its end.
fn submit(service: &Service, request: Request, client: u64) -> (Cancel, mpsc::Receiver<Told>) {
    let (sender, receiver) = mpsc::channel();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let cancel = service
        .submit(
            request,
            client,
            Box::new(move |event| {
                let end = match event {
                    Event::Token { text: more, token } => {
                        text.push_str(&more);
                        tokens.push(token);
                        return ControlFlow::Continue(());
                    }
                    Event::Done(answer) => Ok(answer),
                    Event::Failed(error) => Err(error),
                };
                let told = Told { text: std::mem::take(&mut text), tokens: std::mem::take(&mut tokens), end };
                sender.send(told).unwrap();
                ControlFlow::Continue(())
            }),
        )
        .unwrap();
    (cancel, receiver)
}

fn all(service: &Service, requests: &[Request]) -> Vec<Told> {
    let open: Vec<_> =
        requests.iter().enumerate().map(|(at, request)| submit(service, request.clone(), at as u64 % 3)).collect();
    open.into_iter().map(|(_, receiver)| receiver.recv_timeout(LONGEST).unwrap()).collect()
}

/// Waits until `is_so`.
fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONGEST, "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_service_writes_what_a_list_gets_and_streams_all_of_it() {
    let mut requests = mixed_requests();
    for (index, request) in requests.iter_mut().enumerate() {
        request.stop = vec!["the park".to_owned(), "d a".to_owned(), "\n".to_owned()][..index % 4].to_vec();
    }
    for (max_sequences, max_batch_tokens) in [(1, 16), (7, 64), (64, 512)] {
        let (engine, service) = service(&EngineOptions { max_sequences, max_batch_tokens, ..options(Precision::Bf16) });
        let expected = answers(&engine, &requests);
        // Twice: the second time everything is kept from the first.
        for round in 0..2 {
            for (told, expected) in all(&service, &requests).into_iter().zip(&expected) {
                let (answer, expected) = (told.end.unwrap(), expected.as_ref().unwrap());
                assert_eq!(answer, *expected, "{max_sequences} sequences, round {round}");
                assert_eq!(told.text, answer.text);
                assert_eq!(told.tokens, answer.logprobs);
            }
        }
    }
}

#[test]
fn what_breaks_one_request_goes_to_its_own_events() {
    let (_, service) = service(&EngineOptions { context: Some(64), ..options(Precision::F32) });
    let long = Request::new(Prompt::Tokens(vec![5; 64]), 4);
    let unknown = Request::new(Prompt::Tokens(vec![1, 512]), 4);
    let told = all(&service, &[long, text("Once", 8), unknown, text("Once", 0)]);
    assert!(matches!(told[0].end, Err(EngineError::PromptTooLong { prompt: 64, context: 64 })));
    assert_eq!(told[1].end.as_ref().unwrap().tokens.len(), 8);
    assert!(matches!(told[2].end, Err(EngineError::UnknownToken { token: 512, .. })));
    assert_eq!(told[3].end.as_ref().unwrap().tokens.len(), 0);
}

#[test]
fn a_prompt_that_comes_again_is_computed_once() {
    let (engine, service) = service(&options(Precision::Bf16));
    let head: Vec<u32> = (0..200).map(|at| 260 + at * 7 % 250).collect();
    let with = |tail: &[u32]| Request::new(Prompt::Tokens([head.as_slice(), tail].concat()), 8);
    let computed = |request: Request| {
        let before = service.load().counts.prompt_tokens_computed;
        let told = submit(&service, request.clone(), 0).1.recv_timeout(LONGEST).unwrap();
        assert_eq!(told.end.as_ref().unwrap(), answers(&engine, &[request]).remove(0).as_ref().unwrap());
        until(|| service.load().writing == 0);
        (service.load().counts.prompt_tokens_computed - before, told.end.unwrap().tokens)
    };
    let (first, answer) = computed(with(&[300, 301, 302]));
    assert_eq!(first, 203);
    assert_eq!(computed(with(&[310, 311])).0, 2);
    assert_eq!(computed(with(&[300, 301, 302])).0, 1);
    // The conversation goes on: all of the answer but its last token was read.
    let continued = [&[300, 301, 302], answer.as_slice(), &[320, 321]].concat();
    assert_eq!(computed(with(&continued)).0, 3);
}

#[test]
fn memory_bounds_what_is_written_and_what_is_kept() {
    let least = NativeEngine::load(
        &common::stories(),
        None,
        &EngineOptions { memory: Some(EngineMemory::new(1)), max_batch_tokens: 64, ..options(Precision::F32) },
    )
    .unwrap_err()
    .to_string();
    let least: u64 = least.split(' ').filter_map(|word| word.parse().ok()).find(|&bytes| bytes > 1).unwrap();
    let (_, service) = service(&EngineOptions {
        memory: Some(EngineMemory::new(least + 600_000)),
        max_batch_tokens: 64,
        ..options(Precision::F32)
    });
    let requests: Vec<Request> = (0..60)
        .map(|at| Request::new(Prompt::Tokens((0..40 + at).map(|p| 3 + (at * 31 + p * 7) % 500).collect()), 12))
        .collect();
    let open: Vec<_> = requests.iter().map(|request| submit(&service, request.clone(), 0)).collect();
    let mut most = 0;
    until(|| {
        let load = service.load();
        assert!(load.cache_used_bytes <= load.cache_bytes, "{load:?}");
        load.waiting + load.writing == 0
    });
    for ((_, receiver), expected) in open.into_iter().zip(answers(&engine(&options(Precision::F32)), &requests)) {
        let told = receiver.recv_timeout(LONGEST).unwrap();
        most = most.max(service.load().cache_used_bytes);
        assert_eq!(told.end.unwrap(), expected.unwrap());
    }
    let load = service.load();
    assert!(
        load.cache_used_bytes > load.cache_bytes / 2 && most <= load.cache_bytes,
        "kept while there is room: {load:?}"
    );
}

#[test]
fn clients_take_turns_and_too_many_are_refused() {
    let engine = Arc::new(engine(&EngineOptions { max_sequences: 1, ..options(Precision::F32) }));
    let service = Service::start(engine, ServiceOptions { max_waiting: 7 });
    let (order, ended) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let submit = |name: &'static str, client| {
        let order = order.clone();
        let on_event = move |event| {
            if let Event::Done(_) = event {
                order.send(name).unwrap();
            }
            ControlFlow::Continue(())
        };
        service.submit(text("Once", 2), client, Box::new(on_event))
    };
    // The first one holds the scheduler until all others wait; its place is counted when the step has ended.
    let hold = move |event| {
        if let Event::Done(_) = event {
            gate.recv().unwrap();
        }
        ControlFlow::Continue(())
    };
    service.submit(text("One", 1), 9, Box::new(hold)).unwrap();
    for (name, client) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2), ("c1", 3)] {
        submit(name, client).unwrap();
    }
    assert_eq!(submit("d1", 4).unwrap_err(), Refused::QueueFull { waiting: 7 });
    go.send(()).unwrap();
    let found: Vec<&str> = (0..6).map(|_| ended.recv_timeout(LONGEST).unwrap()).collect();
    assert_eq!(found, ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

#[test]
fn cancelled_requests_give_their_pages_back() {
    let (_, service) = service(&EngineOptions { max_sequences: 2, ..options(Precision::F32) });
    let (sender, receiver) = mpsc::channel();
    // By a break at the third token; whoever drops the receiver of events is gone for good.
    let mut seen = 0;
    let on_event = move |event: Event| {
        seen += 1;
        sender.send(matches!(event, Event::Token { .. })).unwrap();
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    service.submit(text("Once upon a time", 400), 0, Box::new(on_event)).unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [true, true, true]);
    // By hand, while one is written and another waits.
    let open: Vec<_> = (0..4).map(|_| submit(&service, text("The sun", 400), 0)).collect();
    for (cancel, _) in &open {
        cancel.cancel();
    }
    for (_, receiver) in open {
        assert!(receiver.recv_timeout(LONGEST).is_err(), "no event comes of it");
    }
    until(|| service.load().writing + service.load().waiting == 0);
    assert_eq!(submit(&service, text("One day", 5), 0).1.recv_timeout(LONGEST).unwrap().end.unwrap().tokens.len(), 5);
}

#[test]
fn a_receiver_that_panics_harms_nobody() {
    let (_, service) = service(&options(Precision::F32));
    let open = submit(&service, text("One day", 30), 0).1;
    service.submit(text("One day", 30), 0, Box::new(|_| panic!("this receiver is broken"))).unwrap();
    assert_eq!(open.recv_timeout(LONGEST).unwrap().end.unwrap().tokens.len(), 30);
}

#[test]
fn drained_it_ends_what_is_there_and_stopped_it_says_so() {
    let (_, service) = service(&options(Precision::F32));
    let open: Vec<_> = (0..5).map(|at| submit(&service, text("One day", 20), at).1).collect();
    service.drain();
    for receiver in open {
        assert_eq!(receiver.try_recv().unwrap().end.unwrap().tokens.len(), 20);
    }
    assert_eq!(
        service.submit(text("x", 1), 0, Box::new(|_| ControlFlow::Continue(()))).unwrap_err(),
        Refused::Stopping
    );

    let (_, service) = self::service(&EngineOptions { max_sequences: 1, ..options(Precision::F32) });
    let open: Vec<_> = (0..3).map(|at| submit(&service, text("One day", 450), at).1).collect();
    service.stop();
    for receiver in open {
        assert!(matches!(receiver.try_recv().unwrap().end, Err(EngineError::Stopped)));
    }
}

#[test]
fn log_probabilities_of_prompts_are_those_of_scoring() {
    for precision in [Precision::F32, Precision::Bf16] {
        let (engine, service) = service(&EngineOptions { max_batch_tokens: 48, ..options(precision) });
        let ids = |length: u32| (0..length).map(|at| 3 + (at * at * 13 + at) % 480).collect::<Vec<u32>>();
        let score = |tokens: Vec<u32>, max_tokens| Request {
            prompt_logprobs: Some(2),
            ..Request::new(Prompt::Tokens(tokens), max_tokens)
        };
        // Among them one prompt twice, the whole window with the token behind it, and one without anything to tell.
        let requests: Vec<Request> = vec![
            score(ids(100), 0),
            score(ids(100), 5),
            Request::new(Prompt::Tokens(ids(100)), 5),
            score(ids(513), 0),
            score(ids(1), 0),
            score(ids(2), 3),
        ];
        let expected = answers(&engine, &requests);
        for (told, (request, expected)) in all(&service, &requests).into_iter().zip(requests.iter().zip(expected)) {
            let answer = told.end.unwrap();
            assert_eq!(answer, expected.unwrap());
            assert_eq!(answer.tokens.len(), request.max_tokens);
            let Prompt::Tokens(tokens) = &request.prompt else { unreachable!() };
            if request.prompt_logprobs.is_none() {
                assert!(answer.prompt_logprobs.is_empty());
                continue;
            }
            let found: Vec<u32> = answer.prompt_logprobs.iter().map(|found| found.logprob.to_bits()).collect();
            let scored: Vec<u32> = engine.token_logprobs(tokens).iter().map(|logprob| logprob.to_bits()).collect();
            assert_eq!(found, scored, "{precision}, {} tokens", tokens.len());
            for (found, token) in answer.prompt_logprobs.iter().zip(&tokens[1..]) {
                assert_eq!((found.token, found.top.len()), (*token, 2));
            }
        }
        // What was read alone says the same as what others read.
        assert_eq!(
            answers(&engine, &requests[1..2])[0].as_ref().unwrap().tokens,
            answers(&engine, &requests[2..3])[0].as_ref().unwrap().tokens
        );
    }
}
