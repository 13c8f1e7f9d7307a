//! `pipeline bench`: rates and texts on a device, for which `flex` stands in as it runs the very operations that a card does, and rates
//! of the encoders.

#[path = "binary/mod.rs"]
mod binary;

use binary::Bench;
use serde_json::Value;

const TINY: &str = "tests/assets/model/stories260K.bin";

/// The result of a command that ends well.
fn result(bench: &Bench, arguments: &[&str]) -> Value {
    let said = bench.run(&[arguments, &["--json"]].concat());
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    let line = said.out.lines().last().expect("a line");
    serde_json::from_str::<Value>(line).expect("JSON")["result"].clone()
}

#[test]
fn greedy_texts_on_a_device_are_those_of_the_cpu() {
    let bench = Bench::new();
    let prompts = bench.write("prompts.txt", "Once upon a time\nLily and Tom went to the\nThe dog was\n");
    let texts = |device: &str| {
        let on = [
            "bench",
            "text",
            "--model",
            TINY,
            "--prompts",
            &prompts,
            "--new",
            "16",
            "--precision",
            "f32",
            "--device",
            device,
        ];
        let found = result(&bench, &on);
        assert_eq!((found["device"].as_str(), found["new_tokens"].as_u64()), (Some(device), Some(48)));
        found["texts"].clone()
    };
    let cpu = texts("cpu");
    assert!(cpu[0].as_str().is_some_and(|text| text.len() > 16), "{cpu}");
    assert_eq!(texts("flex"), cpu);
}

#[test]
fn the_rate_of_training_is_told_on_a_device() {
    let bench = Bench::new();
    let shape = ["bench", "train", "--model", TINY, "--batch", "2", "--seq", "64", "--rank", "4", "--steps", "5"];
    let found = result(&bench, &[&shape[..], &["--device", "flex"]].concat());
    assert_eq!((found["device"].as_str(), found["steps"].as_u64()), (Some("flex"), Some(2)), "{found}");
    for key in ["tokens_per_second", "seconds", "first_seconds", "peak_bytes", "base_bytes"] {
        assert!(found[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {found}");
    }
    let losses: Vec<f64> = found["losses"].as_array().expect("losses").iter().filter_map(Value::as_f64).collect();
    assert_eq!(losses.len(), 5);
    assert!(losses.iter().all(|loss| (0.1..20.0).contains(loss)), "{losses:?}");
}

#[test]
fn a_device_that_is_not_there_is_refused_before_a_model_is_read() {
    let bench = Bench::new();
    let prompts = bench.write("prompts.txt", "Once\n");
    for command in [
        ["bench", "train", "--model", "missing.gguf", "--batch", "1"],
        ["bench", "text", "--model", "missing.gguf", "--prompts", &prompts],
    ] {
        let said = bench.run(&[&command[..], &["--device", "cuda:999"]].concat());
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains("error: device cuda:999: "), "{}", said.err);
    }
}

#[test]
fn encoders_have_rates() {
    let found = result(&Bench::new(), &["bench", "quantize", "--type", "q4_k,Q8_0"]);
    let rows = found["quantize"].as_array().expect("rows").clone();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["type"].as_str()).collect();
    assert_eq!(names, ["Q4_K", "Q8_0"]);
    assert!(rows.iter().all(|row| row["bytes_per_second"].as_f64().is_some_and(|rate| rate > 1e6)), "{rows:?}");
    // Q8_0 leaves nothing to choose, so that importance does not change it.
    assert!(rows[0]["seconds_refined"].is_f64() && rows[1].get("seconds_with_importance").is_none(), "{rows:?}");
    let said = Bench::new().run(&["bench", "quantize", "--type", "IQ2_XS"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("only read, not written; choose one of"), "{}", said.err);
}
