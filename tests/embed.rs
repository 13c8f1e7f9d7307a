//! `pipeline embed` on the small encoder and on a model that writes.

#[path = "binary/mod.rs"]
mod binary;

use binary::Bench;
use serde_json::Value;

const ENCODER: &str = "tests/assets/encoders/bert";
const DECODER: &str = "tests/assets/architectures/qwen3";

fn vectors(path: &str) -> Vec<(Value, Vec<f64>)> {
    let text = std::fs::read_to_string(path).expect("vectors");
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let numbers = value["embedding"].as_array().expect("a vector").iter().filter_map(Value::as_f64).collect();
        (value["id"].clone(), numbers)
    };
    text.lines().map(line).collect()
}

#[test]
fn each_text_has_its_vector() {
    let bench = Bench::new();
    let input = bench
        .write("texts.jsonl", "{\"text\": \"The frog lived in a pond.\", \"id\": \"frog\"}\n\"Where did it live?\"\n");
    let output = bench.text("vectors.jsonl");
    for model in [ENCODER, DECODER] {
        let said = bench.run(&["embed", "--model", model, "--input", &input, "--output", &output]);
        assert_eq!(said.code, 0, "{}", said.err);
        let found = vectors(&output);
        assert_eq!((found[0].0.as_str(), found[1].0.as_u64(), found.len()), (Some("frog"), Some(1), 2));
        for (_, vector) in &found {
            assert!((vector.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-4);
        }
        let last =
            bench.run(&["embed", "--model", model, "--input", &input, "--output", &output, "--pooling", "last-token"]);
        assert_eq!(last.code, 0, "{}", last.err);
        assert_ne!(vectors(&output)[0].1, found[0].1);
    }
}

#[test]
fn what_cannot_be_embedded_is_said() {
    let bench = Bench::new();
    let mut words = String::new();
    let output = bench.text("vectors.jsonl");
    let files = [("not JSON", "\"a\"\n{"), ("no text", "{\"txt\": \"a\"}\n")];
    for (name, content) in files {
        let input = bench.write("texts.jsonl", content);
        let said = bench.run(&["embed", "--model", ENCODER, "--input", &input, "--output", &output]);
        words += &format!("{name}\n{}\n\n", said.refusal());
    }
    let input = bench.write("long.jsonl", format!("\"{}\"\n", "frog ".repeat(100)));
    let said = bench.run(&["embed", "--model", ENCODER, "--input", &input, "--output", &output]);
    words += &format!("too long\n{}{}\n", said.err, said.out);
    let said = bench.run(&["chat", "--model", ENCODER, "--ask", "Hello"]);
    words += &format!("a chat with an encoder\n{}\n", said.refusal());
    insta::assert_snapshot!(words);
}
