//! `pipeline data clean` as a person runs it.

#[path = "binary/mod.rs"]
mod binary;

use binary::Bench;
use serde_json::{Value, json};

fn row(id: &str, question: &str, answer: &str) -> String {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], "id": id})
        .to_string()
        + "\n"
}

fn rows() -> String {
    [
        row(
            "good",
            "How do I keep a pond clean in summer?",
            "Skim leaves off the surface every few days and keep a third of it in the shade.",
        ),
        row(
            "twin",
            "how do I keep a pond CLEAN in summer",
            "Skim leaves off the surface every few days, and keep a third of it in the shade!",
        ),
        row("refusal", "Where is the pond?", "I'm sorry, but I can't help with that."),
        row("item", "What is the capital of France?", "Paris."),
        row("mail", "Who looks after the pond?", "Anna does; write to anna@example.org."),
    ]
    .concat()
}

#[test]
fn rows_are_cleaned_and_each_rejection_is_said() {
    let bench = Bench::new();
    let input = bench.write("rows.jsonl", rows());
    let benchmark =
        bench.write("capitals.jsonl", "{\"question\": \"What is the capital of France?\", \"answer\": \"Paris\"}\n");
    let [output, rejected, report] = ["clean.jsonl", "rejected.jsonl", "report.json"].map(|name| bench.text(name));
    let arguments = [
        "data",
        "clean",
        "--input",
        &input,
        "--output",
        &output,
        "--minhash",
        "--rules",
        "--mask-pii",
        "--decontaminate",
        &benchmark,
        "--rejected",
        &rejected,
        "--report",
        &report,
    ];
    let said = bench.run(&arguments);
    assert_eq!(said.code, 0, "{}", said.err);
    let cleaned = std::fs::read_to_string(&output).expect("rows");
    assert_eq!(cleaned.lines().count(), 2);
    assert!(cleaned.contains("write to [EMAIL]."));
    let out = std::fs::read_to_string(&rejected).expect("rejected rows");
    let reasons: Vec<String> = out
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            format!("{} {}", line["id"].as_str().expect("an id"), line["reason"].as_str().expect("a reason"))
        })
        .collect();
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&report).expect("a report")).expect("JSON");
    assert_eq!((written["rows"].as_u64(), written["kept"].as_u64()), (Some(5), Some(2)));
    let expected = [
        "twin near-duplicate: 1.00 like good",
        "refusal refusal: `I'm sorry, but I can't help with that.`",
        "item contamination: 1.00 of the question of capitals:1",
    ];
    assert_eq!(reasons, expected);
    for words in ["5 rows: 2 kept, 3 rejected", "1  near-duplicate", "masked: 1 email", "1  with an item of capitals"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }

    let dry = bench.run(&["data", "clean", "--input", &input, "--dry-run", "--json"]);
    assert_eq!(dry.code, 0, "{}", dry.err);
    let last: Value = serde_json::from_str(dry.out.lines().last().expect("a result")).expect("JSON");
    assert_eq!(last["result"]["cleaned"]["kept"], 3, "{last}");
}

#[test]
fn what_says_the_same_is_found_by_a_model_of_vectors() {
    let bench = Bench::new();
    let other = row(
        "other",
        "In summer, how do I keep a pond clean?",
        "Every few days skim leaves off the surface, and keep a third of it in the shade.",
    );
    let input = bench.write("rows.jsonl", rows() + &other);
    let output = bench.text("clean.jsonl");
    let clean = ["data", "clean", "--input", &input, "--output", &output, "--embedder"];
    let said = bench.run(&[&clean[..], &["tests/assets/encoders/bert", "--same-meaning", "0.996", "--json"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let last: Value = serde_json::from_str(said.out.lines().last().expect("a result")).expect("JSON");
    let report = &last["result"]["cleaned"];
    assert_eq!(report["rejected_by"], json!([["same meaning", 1]]), "{report}");
    let same = &report["same_meaning"][0];
    assert_eq!((&same["id"], &same["of"], &same["row_line"]), (&json!("other"), &json!("good"), &json!(6)));
    // Of a model that writes nobody knows from where on two vectors say the same.
    let refused = bench.run(&[&clean[..], &["tests/assets/architectures/qwen3"]].concat());
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(
        refused.err.contains("the embedder is a model that writes") && refused.err.contains("--same-meaning"),
        "{}",
        refused.err
    );
}

#[test]
fn what_cannot_be_cleaned_is_said() {
    let bench = Bench::new();
    let input = bench.write("rows.jsonl", rows());
    let bad = bench.write("bad.jsonl", "{\"title\": \"ponds\"}\n");
    let output = bench.text("clean.jsonl");
    let table = bench.text("clean.parquet");
    let cases: [(&[&str], &str); 8] = [
        (&["--input", &input], "--output"),
        (&["--input", &input, "--output", &input], "--output is the input itself"),
        (&["--input", &input, "--output", &table], "name an output that ends in .jsonl"),
        (&["--input", &input, "--output", &output, "--rules", "shape"], "there is no rule `shape`"),
        (&["--input", &input, "--output", &output, "--minhash", "80"], "80 is not between 0 and 1"),
        (&["--input", &input, "--output", &output, "--language", "Klingon"], "`Klingon` is no language"),
        (&["--input", &input, "--output", &output, "--decontaminate", &bad], "bad.jsonl:1: no question here"),
        (&["--input", &input, "--output", &output, "--index", &bad], "not an index of near-duplicates"),
    ];
    for (case, words) in cases {
        let said = bench.run(&[&["data", "clean"], case].concat());
        let refusal = said.refusal();
        assert!(said.code == 2 && refusal.contains(words), "{words}: {refusal}");
        assert!(!bench.path("clean.jsonl").exists() && !bench.path("clean.parquet").exists());
    }
}
