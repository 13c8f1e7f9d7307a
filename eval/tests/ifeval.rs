//! Verdicts of `IFEval` against lm-eval's own on stored responses.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::collections::BTreeMap;

use espalier_eval::ifeval;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One instruction of one response, with lm-eval's verdicts.
#[derive(Deserialize)]
struct Row {
    id: String,
    kwargs: Map<String, Value>,
    response: String,
    strict: bool,
    loose: bool,
    /// Written by a model; else planted so that every kind is met and missed.
    real: bool,
}

/// Kinds for which lm-eval asks langdetect or NLTK; all others must agree without exception.
const LEANING: [&str; 5] = [
    "language:response_language",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "change_case:capital_word_frequency",
    "length_constraints:number_sentences",
];

/// (agreeing, all) strict and loose verdicts of each kind, of real responses and of others.
fn rates(golden: &str) -> BTreeMap<(bool, String), (usize, usize)> {
    let mut rates: BTreeMap<(bool, String), (usize, usize)> = BTreeMap::new();
    for line in golden.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let doc = json!({"instruction_id_list": [row.id], "kwargs": [row.kwargs]});
        let found = ifeval::verdicts(&doc, &row.response).unwrap();
        assert_eq!(ifeval::check(&row.id, &row.kwargs, &row.response).unwrap(), found.strict[0]);
        let agrees = [found.strict[0] == row.strict, found.loose[0] == row.loose];
        if !LEANING.contains(&row.id.as_str()) {
            assert_eq!(agrees, [true; 2], "{line}\n{found:?}");
        } else if agrees != [true; 2] {
            println!("{line}\n{found:?}");
        }
        let rate = rates.entry((row.real, row.id)).or_default();
        rate.0 += agrees.iter().filter(|&&agrees| agrees).count();
        rate.1 += 2;
    }
    rates
}

/// What part of the verdicts of some kinds agrees.
fn share(rates: &BTreeMap<(bool, String), (usize, usize)>, real: bool, of: &[&str]) -> f64 {
    let (agreeing, all) = rates
        .iter()
        .filter(|((kind, id), _)| *kind == real && of.contains(&id.as_str()))
        .fold((0, 0), |sum, (_, rate)| (sum.0 + rate.0, sum.1 + rate.1));
    println!("{} {of:?}: {agreeing} of {all} verdicts agree", if real { "real" } else { "planted" });
    agreeing as f64 / f64::from(u32::try_from(all).unwrap())
}

#[test]
fn verdicts_are_those_of_lm_eval() {
    let rates = rates(include_str!("golden/ifeval.jsonl"));
    assert!(rates.len() >= 2 * 25 - 5, "kinds are missing");
    for id in LEANING {
        assert!(share(&rates, true, &[id]) >= 0.98, "{id}");
        share(&rates, false, &[id]);
    }
    assert!(share(&rates, true, &LEANING) >= 0.98);
    assert!(share(&rates, false, &LEANING) >= 0.98);
}

#[test]
fn verdicts_on_responses_that_nothing_was_adjusted_by() {
    let rates = rates(include_str!("golden/ifeval_fresh.jsonl"));
    for id in LEANING {
        assert!(share(&rates, true, &[id]) >= 0.98, "{id}");
    }
    // Texts in 55 languages, whole, cut and among English.
    assert!(share(&rates, false, &LEANING[..3]) >= 0.98);
}
