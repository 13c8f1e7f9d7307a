//! The terminal chat with lines from a pipe, as a script uses it.

#[path = "binary/mod.rs"]
mod binary;

use binary::{Bench, Said};
use std::io::Write;
use std::process::Stdio;

const TINY: &str = "tests/assets/model/stories260K.bin";
const ADAPTER: &str = "tests/golden/adapter-260k/adapter";

/// A folder with the adapter of the tests, so much stronger that nobody can overlook it.
fn strong(bench: &Bench) -> String {
    let read = |name: &str| std::fs::read(format!("{ADAPTER}/{name}")).expect("a file");
    let settings = String::from_utf8(read("adapter_config.json")).expect("text");
    let stronger = settings.replace("\"lora_alpha\": 32", "\"lora_alpha\": 384");
    assert_ne!(stronger, settings);
    bench.write("strong/adapter_config.json", stronger);
    bench.write("strong/adapter_model.safetensors", read("adapter_model.safetensors"));
    bench.text("strong")
}

/// A chat of short answers with these lines.
fn chat(bench: &Bench, options: &[&str], lines: &[&str]) -> Said {
    let arguments = [&["chat", "--model", TINY, "--max-tokens", "12"], options].concat();
    let mut command = bench.command(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("a pipe");
    // A chat that has ended with an error reads no more.
    let _ = input.write_all(lines.join("\n").as_bytes());
    drop(input);
    bench.said(&child.wait_with_output().expect("it ends"))
}

/// The answers: one line each, as the tests ask for so few tokens.
fn answers(bench: &Bench, options: &[&str], lines: &[&str]) -> Vec<String> {
    let said = chat(bench, &[options, &["--json"]].concat(), lines);
    assert_eq!(said.code, 0, "{}", said.err);
    let text = |line: &str| -> Option<String> {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event");
        Some(event["result"]["answers"][0]["text"].as_str()?.to_owned())
    };
    said.out.lines().filter_map(text).collect()
}

#[test]
fn what_is_said_is_kept_asked_again_and_changed() {
    let bench = Bench::new();
    let both = answers(&bench, &[], &["Once upon a time", "", "There was a frog"]);
    assert_eq!(both.len(), 2);
    // The second question alone is another conversation.
    let cleared = answers(&bench, &[], &["Once upon a time", "/clear", "There was a frog"]);
    assert_eq!((&cleared[0], cleared.len()), (&both[0], 2));
    let edited = answers(&bench, &[], &["The cat", "/edit Once upon a time", "There was a frog"]);
    assert_eq!(edited[1..], both);
    let again = answers(&bench, &[], &["Once upon a time", "/regenerate"]);
    assert_eq!(again, [both[0].clone(), both[0].clone()]);
    let warm = ["--temperature", "1.2", "--seed", "7"];
    let drawn = answers(&bench, &warm, &["Once upon a time", "/regenerate", "/seed 6", "/regenerate"]);
    assert_ne!(drawn[0], drawn[1], "another draw");
    // The third answer has the seed 6 and two answers before it: the second had 7 and one.
    assert_eq!(drawn[1], drawn[2]);
}

#[test]
fn adapters_are_changed_in_the_middle_of_a_chat() {
    let bench = Bench::new();
    let lines = ["Once upon a time", "There was a frog"];
    let strong = strong(&bench);
    let base = answers(&bench, &[], &lines);
    let tuned = answers(&bench, &["--adapter", &strong], &lines);
    assert_ne!(base[0], tuned[0]);
    let load = format!("/adapter {strong}");
    let both = answers(
        &bench,
        &[],
        &[lines[0], &load, "/regenerate", lines[1], "/adapter none", "/edit There was a frog", "/clear", lines[0]],
    );
    assert_eq!((both[0].as_str(), &both[1..3], both[4].as_str()), (base[0].as_str(), &tuned[..], base[0].as_str()));

    let two = ["--adapter", &format!("first={ADAPTER}"), "--adapter", &format!("{ADAPTER}.gguf"), "--json"];
    let said = chat(&bench, &two, &[lines[0], "/adapter adapter", lines[0], "/adapter none", lines[0]]);
    let model = |line: &str| -> Option<String> {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event");
        Some(event["result"]["answers"][0]["model"].as_str()?.to_owned())
    };
    let models: Vec<String> = said.out.lines().filter_map(model).collect();
    assert_eq!(models, ["stories260K.bin + first", "stories260K.bin + adapter", "stories260K.bin"], "{}", said.err);
}

#[test]
fn a_saved_chat_goes_on() {
    let bench = Bench::new();
    let file = bench.text("talk.jsonl");
    let whole = answers(&bench, &["--system", "Tell a story."], &["Once upon a time", "There was a frog"]);
    answers(&bench, &["--system", "Tell a story."], &["Once upon a time", &format!("/save {file}")]);
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    let roles: Vec<&str> =
        saved["messages"].as_array().expect("turns").iter().filter_map(|turn| turn["role"].as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(saved["messages"][2]["content"], whole[0].as_str());
    assert_eq!(answers(&bench, &[], &[&format!("/load {file}"), "There was a frog"]), whole[1..]);
}

#[test]
fn the_words_of_a_chat() {
    let bench = Bench::new();
    let said = chat(
        &bench,
        &["--system", "Be brief."],
        &["/help", "/temperature 0.5", "/top_k 40", "/settings", "/prompt", "/system", "/prompt", "/quit", "/help"],
    );
    assert_eq!(said.code, 0, "{}", said.err);
    let mut words = said.out;
    let load = format!("/adapter poet={ADAPTER}");
    let said = chat(
        &bench,
        &["--adapter", ADAPTER],
        &["/adapter", &load, "/adapter", "/settings", "/adapter none", "/adapter"],
    );
    assert_eq!(said.code, 0, "{}", said.err);
    words += &format!("\n-- /adapter\n{}", said.out);
    let empty = bench.write("other.jsonl", "{}");
    let load = format!("/load {empty}");
    let wrong = format!("/adapter none={ADAPTER}");
    for line in [
        "/regenrate",
        "/regenerate",
        "/edit",
        "/temperature warm",
        "/top_p 2",
        "/save",
        "/load no-such.jsonl",
        &load,
        "/adapter nobody",
        &wrong,
    ] {
        let said = chat(&bench, &[], &[line]);
        assert_ne!(said.code, 0, "{line}");
        words += &format!("\n-- {}\n{}\n", line.replace(&empty, "[file]"), said.refusal());
    }
    insta::assert_snapshot!(words);
}

#[test]
fn answers_stream_as_text_and_a_question_may_begin_with_a_slash() {
    let bench = Bench::new();
    let expected = answers(&bench, &[], &["//etc is a folder"]);
    let said = chat(&bench, &["--quiet"], &["//etc is a folder"]);
    assert_eq!((said.code, said.out.trim(), said.err.as_str()), (0, expected[0].trim(), ""));
    let asked = bench.run(&["chat", "--model", TINY, "--max-tokens", "12", "--ask", "/etc is a folder"]);
    assert_eq!(asked.out.trim(), expected[0].trim());
}
