//! Formats of training data: what is read, what is refused, and in which words.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use espalier_dataset::{Content, Example, Format, Records, Row, Turn, Verdict, write_parquet};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Every row of a file, or what is wrong with it, without the folder.
fn read(folder: &Path, name: &str, bytes: &[u8], format: Option<Format>) -> Vec<Result<Example, String>> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let short = |text: String| text.replace(&format!("{}/", folder.display()), "");
    match Records::open(&path, format) {
        Err(error) => vec![Err(short(error.to_string()))],
        Ok(records) => records
            .map(|record| {
                let record = record.map_err(|problem| short(problem.to_string()))?;
                let line = record.line();
                record.example().map_err(|what| format!("{name}:{line}: {what}"))
            })
            .collect(),
    }
}

fn turns(example: &Example) -> Vec<(String, String, Option<f32>)> {
    let Content::Conversation(turns) = &example.content else { panic!("no conversation: {example:?}") };
    turns.iter().map(|turn| (turn.role.clone(), turn.content.clone(), turn.weight)).collect()
}

fn said(role: &str, content: &str) -> (String, String, Option<f32>) {
    (role.to_owned(), content.to_owned(), None)
}

#[test]
fn each_format_is_known_by_its_first_row() {
    let folder = tempfile::tempdir().unwrap();
    let one = |name: &str, text: &str| {
        let mut rows = read(folder.path(), name, text.as_bytes(), None);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0).unwrap()
    };
    let asked = [said("user", "Q"), said("assistant", "A")];
    let messages = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, {"role": "assistant", "content": "A"}]}"#;
    assert_eq!(turns(&one("a.jsonl", messages)), asked);
    assert_eq!(turns(&one("a.json", &format!("[\n{messages}\n]\n"))), asked);
    let sharegpt = r#"{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}"#;
    assert_eq!(turns(&one("b.jsonl", sharegpt)), asked);
    // What was rendered into `text` beside the fields of alpaca is not taken for the row.
    let alpaca = r#"{"instruction": "Q", "input": "", "output": "A", "text": "Q: Q A: A"}"#;
    assert_eq!(turns(&one("c.jsonl", alpaca)), asked);
    let alpaca = r#"{"instruction": "Add", "input": "1 2", "output": "3", "system": "S", "history": [["Q", "A"]]}"#;
    let expected = [
        said("system", "S"),
        said("user", "Q"),
        said("assistant", "A"),
        said("user", "Add\n\n1 2"),
        said("assistant", "3"),
    ];
    assert_eq!(turns(&one("c.jsonl", alpaca)), expected);
    let completion = one("d.jsonl", r#"{"prompt": "1 + 1 =", "completion": " 2"}"#);
    assert_eq!(completion.content, Content::Completion { prompt: "1 + 1 =".to_owned(), completion: " 2".to_owned() });
    let lists =
        r#"{"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}"#;
    assert_eq!(turns(&one("d.jsonl", lists)), [("user".to_owned(), "Q".to_owned(), Some(0.0)), said("assistant", "A")]);
    assert_eq!(one("e.jsonl", r#"{"text": "</s>"}"#).content, Content::Text("</s>".to_owned()));
    assert_eq!(one("f.md", "\u{feff}# A pond\n").content, Content::Document("# A pond\n".to_owned()));
}

#[test]
fn weights_and_labels_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let row = json!({
        "messages": [
            {"role": "user", "content": "Q", "train": true},
            {"role": "assistant", "content": "A", "training": false, "weight": 1},
            {"role": "user", "content": "R"},
            {"role": "assistant", "content": "B", "weight": 0.5},
        ],
        "weight": 2, "id": 17, "metadata": {"leaf": "skills/dates", "kind": "freeform_skill"},
    });
    let text = format!("\n{row}\n");
    let example = read(folder.path(), "a.jsonl", text.as_bytes(), None).remove(0).unwrap();
    let weights: Vec<Option<f32>> = turns(&example).into_iter().map(|turn| turn.2).collect();
    assert_eq!(weights, [Some(1.0), Some(0.0), None, Some(0.5)]);
    assert_eq!((example.weight, example.line, example.id.as_str()), (2.0, 2, "17"));
    assert_eq!((example.leaf.as_deref(), example.kind.as_deref()), (Some("skills/dates"), Some("freeform_skill")));
}

#[test]
fn accepted_rows_of_a_table_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let row = |id: &str, verdict| Row {
        id: id.to_owned(),
        leaf: "pond".to_owned(),
        turns: vec![Turn::new("user", "Q"), Turn::new("assistant", "A")],
        verdict,
        ..Row::default()
    };
    let path = folder.path().join("rows.parquet");
    write_parquet(&path, &[row("1", Verdict::Rejected), row("2", Verdict::Accepted)]).unwrap();
    let found: Vec<Example> =
        Records::open(&path, None).unwrap().map(|record| record.unwrap().example().unwrap()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id.as_str(), found[0].line, found[0].leaf.as_deref()), ("2", 2, Some("pond")));
    write_parquet(&path, &[row("1", Verdict::Rejected)]).unwrap();
    let problem = Records::open(&path, None).unwrap().next().unwrap().unwrap_err();
    assert!(problem.to_string().ends_with("no row of the table was accepted; `pipeline data funnel` says why"));
}

#[test]
fn faults_are_named_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}"#;
    let after = |row: &str| format!("{good}\n{row}\n").into_bytes();
    let message = |message: &str| after(&format!("{{\"messages\": [{message}]}}"));
    let cases: Vec<(&str, &str, Vec<u8>, Option<Format>)> = vec![
        ("nothing", "a.jsonl", vec![], None),
        ("blank lines", "a.jsonl", b"\n\n".to_vec(), None),
        ("an empty list", "a.json", b"[]".to_vec(), None),
        ("an empty text", "a.txt", b" \n".to_vec(), None),
        ("no UTF-8", "a.jsonl", [good.as_bytes(), b"\n{\"messages\": \"\xff\"}\n"].concat(), None),
        ("a text that is no UTF-8", "a.txt", b"one\ntwo \xff".to_vec(), None),
        ("UTF-16", "a.jsonl", b"\xff\xfe{\0".to_vec(), None),
        ("a torn line", "a.jsonl", after("{\"messages\": [{\"role\": \"us"), None),
        ("a torn list", "a.json", format!("[{good},\n{{\"mess").into_bytes(), None),
        ("no JSON", "a.jsonl", after("{\"messages\": ]}"), None),
        ("no object", "a.jsonl", after("[1, 2]"), None),
        ("an unknown row", "a.jsonl", b"{\"question\": \"Q\", \"answer\": \"A\"}\n".to_vec(), None),
        ("another format than named", "a.jsonl", format!("{good}\n{good}").into_bytes(), Some(Format::Alpaca)),
        ("another format in between", "a.jsonl", after("{\"instruction\": \"Q\", \"output\": \"A\"}"), None),
        ("a missing key", "a.jsonl", b"{\"instruction\": \"Q\"}\n".to_vec(), Some(Format::Alpaca)),
        ("no messages", "a.jsonl", after("{\"messages\": []}"), None),
        ("messages that are none", "a.jsonl", after("{\"messages\": \"Q\"}"), None),
        ("no role", "a.jsonl", message("{\"content\": \"Q\"}"), None),
        ("an unknown role", "a.jsonl", message("{\"role\": \"narrator\", \"content\": \"Q\"}"), None),
        ("the role of a tool", "a.jsonl", message("{\"role\": \"tool\", \"content\": \"4\"}"), None),
        (
            "a call of a tool",
            "a.jsonl",
            message("{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{}]}"),
            None,
        ),
        ("no content", "a.jsonl", message("{\"role\": \"assistant\", \"content\": null}"), None),
        ("an image", "a.jsonl", message("{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}"), None),
        (
            "thoughts",
            "a.jsonl",
            message("{\"role\": \"assistant\", \"content\": \"A\", \"reasoning_content\": \"R\"}"),
            None,
        ),
        ("a weight below zero", "a.jsonl", message("{\"role\": \"user\", \"content\": \"Q\", \"weight\": -1}"), None),
        (
            "a flag that is none",
            "a.jsonl",
            message("{\"role\": \"user\", \"content\": \"Q\", \"train\": \"no\"}"),
            None,
        ),
        (
            "tools",
            "a.jsonl",
            after("{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}], \"tools\": [{}]}"),
            None,
        ),
        (
            "an unknown side",
            "a.jsonl",
            b"{\"conversations\": [{\"from\": \"narrator\", \"value\": \"Q\"}]}".to_vec(),
            None,
        ),
        ("a text and a list", "a.jsonl", b"{\"prompt\": \"Q\", \"completion\": []}".to_vec(), None),
        ("an output that is none", "a.jsonl", b"{\"instruction\": \"Q\", \"output\": null}".to_vec(), None),
        ("a table that is none", "a.parquet", b"PAR1".to_vec(), None),
    ];
    let mut words = String::new();
    for (name, file, bytes, format) in cases {
        let found = read(folder.path(), file, &bytes, format);
        let problems: Vec<String> = found.into_iter().filter_map(Result::err).collect();
        assert!(!problems.is_empty(), "{name}");
        words += &format!("{name}\n{}\n\n", problems.join("\n"));
    }
    insta::assert_snapshot!(words);
}

fn conversation() -> impl Strategy<Value = Vec<(String, String, Option<f32>)>> {
    let role = prop_oneof!["system", "user", "assistant"].prop_map(|role: String| role);
    proptest::collection::vec((role, ".{0,20}", Just(None)), 1..5)
}

/// Any JSON, not deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof!["role", "content", "from", "value", "type", "text", "weight", "train", ".{0,3}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// One row a line, a list, or a list over many lines.
fn written(rows: &[Value], form: u8) -> String {
    match form {
        0 => rows.iter().map(|row| format!("{row}\n")).collect(),
        1 => Value::from(rows.to_vec()).to_string(),
        _ => serde_json::to_string_pretty(rows).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn conversations_come_back(conversations in proptest::collection::vec(conversation(), 1..4), sharegpt: bool, form in 0_u8..3) {
        let row = |turns: &Vec<(String, String, Option<f32>)>| {
            let turns: Vec<Value> = turns.iter().map(|(role, content, _)| match (sharegpt, role.as_str()) {
                (false, role) => json!({"role": role, "content": content}),
                (true, "user") => json!({"from": "human", "value": content}),
                (true, "assistant") => json!({"from": "gpt", "value": content}),
                (true, role) => json!({"from": role, "value": content}),
            }).collect();
            if sharegpt { json!({"conversations": turns}) } else { json!({"messages": turns}) }
        };
        let rows: Vec<Value> = conversations.iter().map(row).collect();
        let folder = tempfile::tempdir().unwrap();
        let found = read(folder.path(), "a.json", written(&rows, form).as_bytes(), None);
        let found: Vec<_> = found.into_iter().map(|example| turns(&example.unwrap())).collect();
        prop_assert_eq!(found, conversations);
    }

    #[test]
    fn fields_come_back(one in ".{1,20}", other in ".{1,20}", form in 0_u8..3) {
        let folder = tempfile::tempdir().unwrap();
        let first = |row: Value| read(folder.path(), "a.jsonl", written(&[row], form).as_bytes(), None).remove(0);
        let alpaca = first(json!({"instruction": one, "input": "", "output": other})).unwrap();
        prop_assert_eq!(turns(&alpaca), [said("user", &one), said("assistant", &other)]);
        let completion = first(json!({"prompt": one, "completion": other})).unwrap();
        prop_assert_eq!(completion.content, Content::Completion { prompt: one.clone(), completion: other });
        match first(json!({"text": one})) {
            Ok(text) => prop_assert_eq!(text.content, Content::Text(one)),
            Err(_) => prop_assert!(one.trim().is_empty()),
        }
    }

    #[test]
    fn any_value_is_read_or_refused(values in proptest::collection::vec(value(), 5), format in 0_usize..5, form in 0_u8..3) {
        let keys = ["messages", "conversations", "instruction", "output", "prompt", "completion", "text"];
        let row: Value = keys.iter().zip(values.iter().cycle()).map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let folder = tempfile::tempdir().unwrap();
        let found = read(folder.path(), "a.jsonl", written(&[row], form).as_bytes(), Some(Format::ALL[format]));
        prop_assert_eq!(found.len(), 1);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), format in 0_usize..8, list: bool) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = if list { [b"[", bytes.as_slice()].concat() } else { bytes };
        let found = read(folder.path(), "a.json", &bytes, Format::ALL.get(format).copied());
        prop_assert!(!found.is_empty() && found.len() <= bytes.len() + 1);
    }
}
