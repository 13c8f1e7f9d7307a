//! A teacher is asked about rows, a student learns from both: the binary on the 260K model, with kills and bad input.

mod binary;

use binary::Bench;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

const MODEL: &str = "tests/assets/model/stories260K.bin";

fn rows(names: &[&str]) -> String {
    let things = ["ball", "cat", "tree", "boat", "hat"];
    let row = |name: &str, thing: &str, colour: &str| {
        let turns = serde_json::json!({"messages": [
            {"role": "user", "content": format!("What {colour} thing does {name} see?")},
            {"role": "assistant", "content": format!("{name} sees a {colour} {thing} near the big house.")}]});
        format!("{turns}\n")
    };
    let mut text = String::new();
    for name in names {
        for thing in things {
            for colour in ["red", "blue", "green", "big", "little", "old", "new", "funny"] {
                text += &row(name, thing, colour);
            }
        }
    }
    text
}

/// A teacher: the model with an adapter that knows some of the rows.
fn teacher(bench: &Bench) -> String {
    let data = bench.write("known.jsonl", rows(&["Lily", "Tom"]));
    let out = bench.text("teacher");
    let settings = ["--set", "rank=4", "--set", "learning_rate=0.01", "--max-steps", "20"];
    let said = bench.run(&[&["train", "--model", MODEL, "--data", &data, "--out", &out][..], &settings].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    bench.text("teacher/adapter")
}

fn teach<'a>(adapter: &'a str, data: &'a str, out: &'a str) -> Vec<&'a str> {
    let models = ["teach", "--model", MODEL, "--adapter", adapter, "--student", MODEL];
    [&models[..], &["--data", data, "--out", out, "--top-k", "16"]].concat()
}

#[test]
fn a_student_learns_from_a_table_that_was_killed_in_the_making() {
    let bench = Bench::new();
    let (adapter, data) =
        (teacher(&bench), bench.write("rows.jsonl", rows(&["Ben", "Mia", "Sam", "Anna", "Lucy", "Max"])));
    let (whole, broken) = (bench.text("whole.parquet"), bench.text("broken.parquet"));
    let said = bench.run(&teach(&adapter, &data, &whole));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("240 rows, ") && said.out.contains("of the teacher's probability"), "{}", said.out);

    let mut child = bench.command(&teach(&adapter, &data, &broken)).stderr(Stdio::null()).spawn().expect("a child");
    let (parts, begun) = (bench.path("broken.parquet.work"), Instant::now());
    let made =
        || fs::read_dir(&parts).is_ok_and(|entries| entries.flatten().any(|entry| !entry.path().ends_with(".part")));
    while !made() && begun.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().expect("a child");
    let again = bench.run(&[&teach(&adapter, &data, &broken)[..], &["--threads", "1"]].concat());
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(fs::read(&whole).expect("a table") == fs::read(&broken).expect("a table"), "the tables differ");
    assert!(!parts.exists());

    let learn = |out: &str| {
        let out = bench.text(out);
        let arguments = ["train", "--model", MODEL, "--data", &data, "--teacher-logprobs", &whole, "--out", &out];
        bench.run(&[&arguments[..], &["--set", "rank=4", "--set", "distill_weight=0.7", "--max-steps", "6"]].concat())
    };
    let said = learn("student");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("240 conversations with a teacher's probabilities"), "{}", said.err);
    let losses = fs::read_to_string(bench.path("student/loss.jsonl")).expect("losses");
    assert!(losses.lines().count() == 6 && losses.lines().all(|line| line.contains("\"divergence\":")), "{losses}");

    let other = bench.write("rows.jsonl", rows(&["Ben"]).replace("near", "behind"));
    assert_eq!(other, data);
    let refused = learn("other");
    assert_eq!(refused.code, 2);
    let words = refused.refusal();
    assert!(words.contains("none of the 40 rows to train on is among its 240"), "{words}");
}

#[test]
fn a_teacher_of_another_tokenizer_is_refused_and_told_the_other_way() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows(&["Ben"]));
    let model = bench.write("other/stories260K.bin", fs::read(MODEL).expect("a model"));
    let mut tokens = fs::read("tests/assets/model/tok512.bin").expect("a tokenizer");
    let at = tokens.windows(4).position(|word| word == b"Lily").expect("a token");
    tokens[at..at + 4].copy_from_slice(b"Lulu");
    bench.write("other/tok512.bin", tokens);
    let out = bench.text("teacher.parquet");
    let said = bench.run(&["teach", "--model", &model, "--student", MODEL, "--data", &data, "--out", &out]);
    assert_eq!(said.code, 2);
    let words = said.refusal();
    assert!(words.contains("have different tokenizers (token") && words.contains("Lulu\" there and"), "{words}");
    assert!(words.contains("hint: such a teacher teaches by its texts: write `teacher: "), "{words}");
}

#[test]
fn a_graph_teaches_between_generating_and_training() {
    let bench = Bench::new();
    let adapter = teacher(&bench);
    let file = |teach: &str| {
        bench.write(
            "distill.yaml",
            format!(
                "espalier: 1\nname: distill\nstudent: {MODEL}\nstages:\n  generate: {{taxonomy: taxonomy/examples/tiny, \
                 shots: 0, max_tokens: 24}}\n  teach: {{needs: [generate]{teach}}}\n  train: {{needs: [teach], rank: 4, \
                 max_steps: 3}}\n"
            ),
        )
    };
    let alone = bench.pipeline(&file(""), "run");
    assert_eq!(alone.code, 2);
    insta::assert_snapshot!("the_student_itself", alone.refusal());
    let file = file(&format!(", adapter: {adapter:?}, top_k: 8"));
    let first = bench.pipeline(&file, "run");
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.err.contains("with a teacher's probabilities"), "{}", first.err);
    let made = bench.results("run");
    assert!(made.contains_key("teacher.parquet"));
    let second = bench.pipeline(&file, "run");
    assert_eq!(second.err.matches("up to date").count(), 3, "{}", second.err);
    assert!(made == bench.results("run"));
}
