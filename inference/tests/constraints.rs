//! Answers that must have a form: they have it, whatever the prompt and the sampling, and nothing else decides them.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod common;

use std::sync::Arc;

use common::{answers, engine, options, text};
use espalier_inference::{Answer, Constraint, EngineError, EngineOptions, Finish, Request, Sampling};
use espalier_kernels::Precision;
use serde_json::{Value, json};

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer",
            "minimum": 3, "maximum": 120}}, "required": ["name", "age"], "additionalProperties": false}),
        json!({"type": "array", "items": {"enum": ["cat", "dog", 3, null]}, "minItems": 1, "maxItems": 4}),
        json!({"type": "object", "properties": {"ok": {"type": "boolean"}, "kind": {"const": "tale"},
            "part": {"$ref": "#/$defs/part"}}, "required": ["ok", "kind", "part"], "additionalProperties": false,
            "$defs": {"part": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["n"], "additionalProperties": false}}}),
        json!({"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-c]{2,5}$"}]}),
        json!({"type": "string", "maxLength": 12}),
        json!({"type": "number", "minimum": -2.5, "maximum": 2.5}),
    ]
}

fn constraints() -> Vec<Arc<Constraint>> {
    let choice = |choices: &[&str]| Constraint::Choice(choices.iter().map(|&choice| choice.to_owned()).collect());
    let mut constraints: Vec<Constraint> = schemas().into_iter().map(Constraint::JsonSchema).collect();
    constraints.extend([
        Constraint::JsonObject,
        Constraint::Regex(r"^[A-Z][a-z]{2,9}( [a-z]{1,7}){0,4}\.$".to_owned()),
        Constraint::Regex(r"\d{1,3}/\d{2}|é+|\p{Greek}{2}x".to_owned()),
        choice(&["yes", "no", "yes or no", "a.c", " because", "déjà"]),
    ]);
    constraints.into_iter().map(Arc::new).collect()
}

/// Every constraint with several prompts and ways of sampling.
fn requests() -> Vec<Request> {
    let prompts = ["", "Once upon a time", "{\"name\": \"", "The dog said: yes", "1, 2, 3, 4", "Ünï \u{1f600} ]]"];
    let mut requests = Vec::new();
    for (form, constraint) in constraints().iter().enumerate() {
        for (number, prompt) in prompts.iter().enumerate() {
            let sampling = match (form + number) % 4 {
                0 => Sampling::GREEDY,
                1 => Sampling::at_temperature(1.0),
                2 => Sampling { top_p: 0.9, frequency_penalty: 0.5, ..Sampling::at_temperature(3.0) },
                _ => Sampling { top_k: 4, presence_penalty: 1.0, ..Sampling::at_temperature(0.7) },
            };
            let seed = (form * 100 + number) as u64;
            requests.push(Request { sampling, seed, constraint: Some(Arc::clone(constraint)), ..text(prompt, 120) });
        }
    }
    requests
}

fn all(requests: &[Request], options: &EngineOptions) -> Vec<Answer> {
    answers(&engine(options), requests).into_iter().map(Result::unwrap).collect()
}

#[test]
fn every_answer_that_ends_has_its_form() {
    let requests = requests();
    let mut ended = 0;
    for (request, answer) in requests.iter().zip(all(&requests, &options(Precision::Bf16))) {
        let constraint = request.constraint.as_ref().unwrap();
        match answer.finish {
            Finish::Stop => {
                ended += 1;
                assert_eq!(constraint.check(&answer.text), Ok(()), "{constraint:?}: {:?}", answer.text);
            }
            Finish::Length => assert_eq!(answer.tokens.len(), 120, "{constraint:?}: {:?}", answer.text),
        }
    }
    // Any object, and digits behind a point, may go on for long.
    assert!(ended * 10 >= requests.len() * 7, "{ended} of {} ended by themselves", requests.len());
}

#[test]
fn batch_size_threads_and_neighbours_change_nothing() {
    let mut requests = requests();
    requests.extend((0..6).map(|seed| Request {
        sampling: Sampling::at_temperature(1.0),
        seed,
        ..text("Once upon a time", 20)
    }));
    let expected = all(&requests, &EngineOptions { max_sequences: 1, ..options(Precision::Bf16) });
    for (max_sequences, threads) in [(7, 1), (64, 2)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = EngineOptions { max_sequences, ..options(Precision::Bf16) };
        let found = pool.install(|| all(&requests, &options));
        assert_eq!(found, expected, "{max_sequences} sequences, {threads} threads");
    }
    requests.reverse();
    let mut found = all(&requests, &options(Precision::Bf16));
    found.reverse();
    assert_eq!(found, expected);
}

#[test]
fn an_answer_cut_by_its_limit_is_reported_so() {
    let constraint = Constraint::Regex("[a-z ]{200}".to_owned());
    let request = Request { constraint: Some(Arc::new(constraint)), ..text("One day", 10) };
    let answer = all(&[request], &options(Precision::F32)).remove(0);
    assert_eq!((answer.finish, answer.tokens.len()), (Finish::Length, 10));
}

#[test]
fn a_form_that_no_text_can_have_is_refused_before_the_run() {
    let engine = engine(&options(Precision::F32));
    let problem = |constraint: Constraint| {
        let request = Request { constraint: Some(Arc::new(constraint.clone())), ..text("x", 5) };
        let error = answers(&engine, &[request]).remove(0).unwrap_err();
        assert!(matches!(error, EngineError::Constraint { .. }), "{error}");
        assert_eq!(engine.check_constraint(&constraint).unwrap_err().to_string(), error.to_string());
        error.to_string()
    };
    let schema = |schema: Value| problem(Constraint::JsonSchema(schema));
    insta::assert_snapshot!(
        [
            schema(json!({"allOf": [{"type": "string"}, {"type": "integer"}]})),
            schema(json!({"type": "integer", "minimum": 5, "maximum": 4})),
            schema(json!({"type": "object", "required": ["a"], "properties": {"a": false}})),
            schema(json!(false)),
            schema(json!({"type": "array", "uniqueItems": true})),
            schema(json!({"type": "thing"})),
            schema(json!({"$ref": "#/$defs/none"})),
            problem(Constraint::Regex("(a".to_owned())),
            problem(Constraint::Regex("a(?=b)".to_owned())),
            problem(Constraint::Regex(r"[^\s\S]".to_owned())),
            problem(Constraint::Choice(vec![])),
        ]
        .join("\n")
    );
}
