//! A real model, where `ESPALIER_TEST_SMOLLM2` names its file.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::path::PathBuf;

use common::{answers, options};
use espalier_inference::{NativeEngine, Prompt, Request};
use espalier_kernels::Precision;
use espalier_model::{Message, Model};

fn model() -> Option<Model> {
    let Some(path) = std::env::var_os("ESPALIER_TEST_SMOLLM2").map(PathBuf::from) else {
        println!("skipped: ESPALIER_TEST_SMOLLM2 names no model file");
        return None;
    };
    Some(Model::open(&path).unwrap())
}

#[test]
fn a_chat_answer_is_sane() {
    let Some(model) = model() else { return };
    let engine = NativeEngine::load(&model, None, &options(Precision::Bf16)).unwrap();
    let ask = |question: &str| Request::new(Prompt::Chat(vec![Message::new("user", question)]), 48);
    let found = answers(&engine, &[ask("What is the capital of France?"), ask("Write one sentence about the sea.")]);
    let texts: Vec<String> = found.into_iter().map(|answer| answer.unwrap().text).collect();
    println!("{texts:#?}");
    assert!(texts[0].contains("Paris"), "{}", texts[0]);
    assert!(texts[1].split_whitespace().count() > 4, "{}", texts[1]);
}

#[test]
fn a_head_that_requests_share_changes_nothing() {
    let Some(model) = model() else { return };
    let mut engine = NativeEngine::load(&model, None, &options(Precision::Bf16)).unwrap();
    let head = "Question: What is 2 + 2?\nAnswer: 4\n\nQuestion: What is 3 + 5?\nAnswer: 8\n\n".repeat(2);
    let requests: Vec<Request> = (1..5)
        .map(|i| Request {
            stop: vec!["\n".to_owned()],
            ..Request::new(Prompt::Text(format!("{head}Question: What is {i} + 1?\nAnswer:")), 12)
        })
        .collect();
    let with: Vec<_> = answers(&engine, &requests).into_iter().map(Result::unwrap).collect();
    engine.set_prefix_sharing(false);
    let without: Vec<_> = answers(&engine, &requests).into_iter().map(Result::unwrap).collect();
    assert_eq!(with, without);
}
