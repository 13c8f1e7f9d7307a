//! What a training looks at on the way, by the binary on the 260K model, beside the inference engine with the exported adapter:
//! the likeliest tokens of the held-out rows, and the divergence of all logits on general text.

mod binary;

use binary::Bench;
use espalier_inference::{EngineOptions, NativeEngine};
use espalier_kernels::Precision;
use espalier_model::{LoraAdapter, Model};
use espalier_train::metrics::{read_forgetting, read_validations};
use espalier_train::{DataItem, DataSource, RunData, RunSources, Sequence, TrainConfig};
use std::path::Path;
use std::sync::atomic::AtomicBool;

const MODEL: &str = "tests/assets/model/stories260K.bin";

const GENERAL: &str = "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her \
    friends. One day she saw a big dog near the tree. The dog was sad because it had lost its ball. Lily wanted to help, so \
    she looked under the bench and behind the house. There it was! The dog was happy and they played all day.\n";

/// Everybody sees a red ball.
fn rows(names: &[&str], thing: &str) -> String {
    let row = |name: &&str| {
        let turns = serde_json::json!({"messages": [
            {"role": "user", "content": format!("What does {name} see?")},
            {"role": "assistant", "content": format!("It is a red {thing}.")}]});
        format!("{turns}\n")
    };
    names.iter().map(row).collect()
}

fn train<'a>(data: &'a str, out: &'a str, settings: &'a [&str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--model", MODEL, "--data", data, "--out", out, "--set", "precision=f32"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    arguments
}

/// Rows of which every target is the engine's likeliest token, and the share of such targets.
fn likeliest(engine: &NativeEngine, rows: &[Sequence]) -> (usize, f64) {
    let (mut right, mut found, mut targets) = (0, 0, 0);
    for row in rows {
        let mut best = Vec::new();
        let largest = |logits: &[f32]| (0..logits.len()).max_by(|&one, &other| logits[one].total_cmp(&logits[other]));
        engine.logits(&row.tokens, &mut |_, logits| best.push(largest(logits).expect("a token"))).expect("logits");
        let learned = || (1..row.tokens.len()).filter(|&at| row.weights[at] != 0.0);
        let hits = learned().filter(|&at| best[at - 1] == row.tokens[at] as usize).count();
        (found, targets) = (found + hits, targets + learned().count());
        right += usize::from(hits == learned().count());
    }
    (right, found as f64 / targets as f64)
}

/// Mean divergence of `tuned` from `base` at the targets of `rows`, from all logits in double precision.
fn divergence(base: &NativeEngine, tuned: &NativeEngine, rows: &[Sequence]) -> f64 {
    let log_softmax = |logits: &[f32]| {
        let sum = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        logits.iter().map(|logit| f64::from(*logit) - sum).collect::<Vec<f64>>()
    };
    let places = |engine: &NativeEngine, row: &Sequence| {
        let mut places = Vec::new();
        engine.logits(&row.tokens, &mut |_, logits| places.push(log_softmax(logits))).expect("logits");
        places
    };
    let (mut sum, mut count) = (0.0, 0);
    for row in rows {
        let (base, tuned) = (places(base, row), places(tuned, row));
        for at in (1..row.tokens.len()).filter(|&at| row.weights[at] != 0.0) {
            sum += base[at - 1].iter().zip(&tuned[at - 1]).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            count += 1;
        }
    }
    sum / f64::from(count)
}

#[test]
fn accuracy_and_forgetting_are_what_the_engine_finds_with_the_exported_adapter() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows(&["Lily", "Tom", "Ben", "Mia", "Sam", "Anna"], "ball"));
    let (right, wrong) = (rows(&["Max", "Lucy", "Jack", "Tom"], "ball"), rows(&["Kate", "Joe"], "frog"));
    let held_out = bench.write("held-out.jsonl", right + &wrong);
    let general = bench.write("general.txt", GENERAL);
    let (validation, forgetting) = (format!("validation={held_out}"), format!("forgetting={general}"));
    let settings = [
        "rank=4",
        "alpha=8",
        "learning_rate=0.005",
        "max_steps=60",
        "tokens_per_step=256",
        "max_sequence=64",
        "checkpoint_every=10",
        "validation_every=5",
        "metric_for_best_model=accuracy",
        "forgetting_tokens=5000",
        &validation,
        &forgetting,
    ];
    let out = bench.text("out");
    let said = bench.run(&train(&data, &out, &settings));
    assert_eq!(said.code, 0, "{}", said.err);
    for words in [
        "1 row is not trained on, because a held-out row says the same; the first: [dir]/rows.jsonl:2",
        "5 conversations and 6 held out",
        "products in f32 on ",
        "metric_for_best_model accuracy: the adapter is that of the checkpoint that has most held-out rows right",
        "what the base thinks of general text",
        "step 0: 0.00000 nats from the base on",
        " of 6 rows right (",
    ] {
        assert!(said.err.contains(words), "{words:?} is not said: {}", said.err);
    }

    let path = bench.path("out/loss.jsonl");
    let (scored, moved) = (read_validations(&path).expect("lines"), read_forgetting(&path).expect("lines"));
    assert_eq!(scored.iter().map(|line| line.step).collect::<Vec<_>>(), (0..=60).step_by(5).collect::<Vec<_>>());
    assert!(moved[0].forgetting.abs() < 1e-6 && moved.len() == scored.len(), "{moved:?}");
    let candidates = scored.iter().filter(|line| line.step > 0 && line.step % 10 == 0);
    let better = |one: &&_, other: &&_| {
        let (one, other): (&espalier_train::metrics::ValidationLine, &espalier_train::metrics::ValidationLine) =
            (one, other);
        one.accuracy.total_cmp(&other.accuracy).then(other.validation_loss.total_cmp(&one.validation_loss))
    };
    let best = candidates.max_by(better).expect("a checkpoint");
    let forgetting = moved.iter().find(|line| line.step == best.step).expect("a line");

    let model = Model::open(Path::new(MODEL)).expect("a model");
    let adapter = LoraAdapter::load(&bench.path("out/adapter"), model.config()).expect("an adapter");
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = |adapter: Option<&LoraAdapter>| NativeEngine::load(&model, adapter, &options).expect("an engine");
    let (base, tuned) = (engine(None), engine(Some(&adapter)));
    let source = |file: &str| vec![DataSource::new(&DataItem::file(file), vec![file.into()])];
    let sources = RunSources { rows: source(&data), validation: source(&held_out), forgetting: source(&general) };
    let config = TrainConfig { max_sequence: 64, ..TrainConfig::default() };
    let read = RunData::load(&model, &sources, &config, &AtomicBool::new(false), &mut |_| {}).expect("rows");
    let (rows, general) = (read.validation.expect("rows").rows, read.general.expect("text").rows);
    // An end of text this model hardly ever writes, so that most rows are right up to their last token.
    let (found, tokens) = likeliest(&tuned, &rows);
    assert!(tokens > 0.6 && tokens < 1.0 && likeliest(&base, &rows).1 < tokens, "nothing to tell apart: {scored:?}");
    assert_eq!(best.right(), found, "{best:?}");
    assert!((best.token_accuracy - tokens).abs() < 1e-12, "{best:?} for {tokens}");
    let truth = divergence(&base, &tuned, &general);
    assert!(truth > 0.01 && (forgetting.forgetting - truth).abs() < 1e-4 * truth, "{forgetting:?} for {truth}");

    // Curves for TensorBoard, and the progress of scripts.
    let events = std::fs::read_dir(bench.path("out/logs/tensorboard/train")).expect("a folder").flatten().next();
    let events = std::fs::read(events.expect("a file").path()).expect("events");
    for tag in ["accuracy/validation", "loss/validation", "forgetting"] {
        assert!(events.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
}

#[test]
fn rows_and_texts_that_cannot_be_looked_at_are_refused_before_the_first_step() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows(&["Lily", "Tom"], "ball"));
    bench.write("no-target.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n");
    bench.write("empty.jsonl", "");
    bench.write("short.txt", "Once upon a time.\n");
    let mut words = String::new();
    for setting in [
        "validation=[dir]/no-target.jsonl",
        "validation=[dir]/empty.jsonl",
        "validation=[dir]/nowhere.jsonl",
        "validation={file: [dir]/rows.jsonl, weight: 2}",
        "validation={stage: rows}",
        "validation=yes",
        "validation=[dir]/rows.jsonl",
        "forgetting=[dir]/short.txt",
        "metric_for_best_model=bleu",
        "metric_for_best_model=accuracy",
        "validation_every=7",
    ] {
        let set = setting.replace("[dir]", &bench.text(""));
        let said = bench.run(&train(&data, &bench.text("out"), &[&set.replace("//", "/")]));
        words += &format!("{setting}\n{}\n\n", said.refusal());
        assert!(!bench.path("out/.work/checkpoints").exists(), "{setting}");
    }
    insta::assert_snapshot!(words);
}
