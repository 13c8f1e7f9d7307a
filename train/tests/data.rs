//! From files to tokens: what is learned, how often, and what is said of data that cannot be learned from.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use espalier_model::{Model, SpecialTokens};
use espalier_train::{
    DataItem, DataSource, Learned, Marks, OverLong, RowKind, Sequences, TrainConfig, TrainError, first_step, load,
    marked_text,
};

fn model() -> Model {
    Model::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/stories260K.bin"))).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig { max_sequence: 64, tokens_per_step: 256, ..TrainConfig::default() }
}

fn source(files: &[PathBuf]) -> DataSource {
    DataSource::new(&DataItem { name: Some("data".to_owned()), ..DataItem::default() }, files.to_vec())
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What is wrong, without the folder.
    fn words(&self, sources: &[DataSource], config: &TrainConfig) -> String {
        let error = read(sources, config).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn read(sources: &[DataSource], config: &TrainConfig) -> Result<Sequences, TrainError> {
    load(&model(), sources, config, &AtomicBool::new(false), &mut |_| {})
}

/// The only row of a file, with brackets.
fn shown(row: &str, config: &TrainConfig) -> String {
    let folder = Folder::new();
    let file = folder.write("a.jsonl", row);
    let data = read(&[source(&[file])], config).unwrap();
    marked_text(model().tokenizer(), &data.rows[0], Marks::Brackets)
}

#[test]
fn what_is_learned_is_what_the_row_and_the_settings_say() {
    let two = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "One"}, {"role": "user", "content": "And"}, {"role": "assistant", "content": "Two"}]}"#;
    let with = |loss| TrainConfig { loss, ..config() };
    assert_eq!(
        shown(two, &with(Learned::Answers)),
        "⟦<s> User: Hi\n\nAssistant:⟧ One</s>⟦ \n\nUser: And\n\nAssistant:⟧ Two</s>"
    );
    assert_eq!(
        shown(two, &with(Learned::Last)),
        "⟦<s> User: Hi\n\nAssistant: One</s> \n\nUser: And\n\nAssistant:⟧ Two</s>"
    );
    assert_eq!(
        shown(two, &with(Learned::All)),
        "⟦<s>⟧ User: Hi\n\nAssistant: One</s> \n\nUser: And\n\nAssistant: Two</s> \n\n"
    );
    let flags = r#"{"weight": 2, "messages": [{"role": "user", "content": "Hi", "weight": 0.25}, {"role": "assistant", "content": "One", "train": false}, {"role": "user", "content": "And"}, {"role": "assistant", "content": "Two", "weight": 0.5}, {"role": "user", "content": "Bye"}]}"#;
    assert_eq!(
        shown(flags, &with(Learned::Answers)),
        "⟦<s> User:⟧⟪0.5: Hi⟫⟦\n\nAssistant: One</s> \n\nUser: And\n\nAssistant:⟧ Two</s>"
    );
    let completion = r#"{"prompt": "1 + 1 =", "completion": " 2"}"#;
    assert_eq!(shown(completion, &config()), "⟦<s> 1 + 1 =⟧ 2</s>");
}

#[test]
fn each_token_of_a_long_text_is_learned_once() {
    let text = "Once upon a time there was a frog who lived in a pond. ".repeat(12);
    let folder = Folder::new();
    let file = folder.write("pond.txt", &text);
    let small = TrainConfig { max_sequence: 32, ..config() };
    let data = read(&[source(&[file])], &small).unwrap();
    let model = model();
    let mut expected = model.tokenizer().encode(&text, SpecialTokens::AsText);
    expected.extend(model.tokenizer().eos());
    let learned: Vec<u32> = data.rows.iter().flat_map(|row| row.tokens[1..].iter().copied()).collect();
    assert_eq!(learned, expected);
    assert!(
        data.rows.len() > 3
            && data.rows.iter().all(|row| row.tokens.len() <= 32 && row.targets() + 1 == row.tokens.len())
    );
    assert_eq!(data.rows[0].id, format!("{}.1", data.rows[1].id.trim_end_matches(".2")));
}

#[test]
fn a_chat_template_may_come_from_a_file() {
    let folder = Folder::new();
    let template = folder.write("t.jinja", "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}");
    let row = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "One"}]}"#;
    let with = TrainConfig { chat_template: Some(template), ..config() };
    assert_eq!(shown(row, &with), "⟦<s> <user>Hi<assistant>⟧One</s>");
    let broken = folder.write("b.jinja", "{% if %}");
    let file = folder.write("a.jsonl", row);
    let words = folder.words(&[source(&[file])], &TrainConfig { chat_template: Some(broken), ..config() });
    assert!(words.starts_with("b.jinja: chat template in line 1"), "{words}");
}

#[test]
fn every_fault_is_said_with_its_line() {
    let folder = Folder::new();
    let row = |answer: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}, {{\"role\": \"assistant\", \"content\": \"{answer}\"}}]}}\n"
        )
    };
    let lines = [
        row("One"),
        row(""),
        row(&"word ".repeat(90)),
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n".to_owned(),
        row("One").replace("\"role\": \"assistant\"", "\"role\": \"assistant\", \"train\": false"),
        row("One").replace("{\"messages\"", "{\"weight\": 0, \"messages\""),
        "{\"messages\": [".to_owned(),
    ];
    let rows = folder.write("rows.jsonl", lines.concat());
    let empty = folder.write("empty.jsonl", "");
    let other = folder.write("other.jsonl", "{\"prompt\": \"Q\", \"completion\": \" \"}\n");
    let strict = TrainConfig { over_long: OverLong::Error, ..config() };
    let words = folder.words(&[source(&[rows, empty, other, folder.0.path().join("gone.jsonl")])], &strict);
    let expected = "\
rows.jsonl:2: turn 1 of the assistant is empty: the model would learn to say nothing; remove the conversation or write an answer
rows.jsonl:3: it has ";
    assert!(words.starts_with(expected), "{words}");
    let starts = [
        "rows.jsonl:4: it has no turn of the assistant",
        "rows.jsonl:5: all its turns are masked",
        "rows.jsonl:6: its weight is 0",
        "rows.jsonl:7: the row ends in the middle of its JSON",
        "empty.jsonl: the file is empty",
        "other.jsonl:1: `completion` is empty",
        "cannot read gone.jsonl: ",
    ];
    for (line, start) in words.lines().skip(2).zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert_eq!(words.lines().count(), 9);
    // The first twenty are shown, the rest counted.
    let many = folder.write("many.jsonl", row("").repeat(30));
    let words = folder.words(&[source(&[many])], &config());
    assert_eq!(words.lines().count(), 21);
    assert!(words.ends_with("\nand 10 more, 30 in all"), "{words}");
    // A template that rewrites what stands before an answer leaves open what the model would write.
    let template = folder
        .write("t.jinja", "{{ messages | length }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}");
    let one = folder.write("one.jsonl", row("One"));
    let words = folder.words(&[source(&[one])], &TrainConfig { chat_template: Some(template), ..config() });
    assert!(words.starts_with("one.jsonl:1: the chat template does not write turn 1 as a continuation"), "{words}");
}

#[test]
fn sources_keep_their_labels_and_threads_change_nothing() {
    let folder = Folder::new();
    let row = |leaf: &str, kind: &str, at: usize| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi {at}\"}}, {{\"role\": \"assistant\", \"content\": \"One\"}}], \"metadata\": {{\"leaf\": \"{leaf}\", \"kind\": \"{kind}\"}}}}\n"
        )
    };
    let rows: String = (0..20)
        .map(|at| if at % 2 == 0 { row("pond", "knowledge", at) } else { row("dates", "freeform_skill", at) })
        .collect();
    let file = folder.write("rows.jsonl", rows + &row("pond", "knowledge", 0));
    let item = |kind, limit, weight| DataItem {
        kind: Some(kind),
        limit,
        weight: Some(weight),
        name: Some(format!("{kind:?}")),
        ..DataItem::default()
    };
    let sources = [
        DataSource::new(&item(RowKind::Skill, None, 1.0), vec![file.clone()]),
        DataSource::new(&item(RowKind::Knowledge, Some(4), 0.5), vec![file]),
    ];
    let data = read(&sources, &config()).unwrap();
    assert_eq!(
        (data.sources.as_slice(), data.mixing.as_slice()),
        (["Skill".to_owned(), "Knowledge".to_owned()].as_slice(), [1.0, 0.5].as_slice())
    );
    assert_eq!(data.leaves, ["dates", "pond"]);
    assert_eq!((data.count(0).0, data.count(1).0), (10, 4));
    assert!(data.rows.iter().all(|row| row.leaf == Some(row.source)));
    assert!(data.warnings.is_empty(), "{:?}", data.warnings);
    let all = read(&[DataSource { kind: None, limit: None, ..sources[1].clone() }], &config()).unwrap();
    assert_eq!(all.warnings.len(), 1);
    assert!(
        all.warnings[0].starts_with("1 row repeats an earlier one; the first: ")
            && all.warnings[0].ends_with("rows.jsonl:1")
    );
    let packed = first_step(&data, &config(), 2048).unwrap();
    assert!(packed.iter().all(|batch| batch.windows(2).all(|rows| rows[0].first + rows[0].tokens == rows[1].first)));
    assert!(
        packed
            .iter()
            .flatten()
            .all(|row| row.targets == data.rows[row.row].targets() && row.place.contains("rows.jsonl:"))
    );
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| read(&sources, &config()).unwrap());
        assert_eq!((again.hash(), &again.rows), (data.hash(), &data.rows));
    }
}

#[test]
fn rows_carry_the_weight_of_their_leaf() {
    let folder = Folder::new();
    let row = |metadata: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}, {{\"role\": \"assistant\", \"content\": \"One\"}}], \"metadata\": {metadata}}}\n"
        )
    };
    let read_rows = |metadata: &[&str]| {
        let file = folder.write("rows.jsonl", metadata.iter().map(|metadata| row(metadata)).collect::<String>());
        read(&[DataSource { weight: 3.0, ..source(&[file]) }], &config()).unwrap()
    };
    let data = read_rows(&[r#"{"leaf": "a", "leaf_weight": 2}"#, r#""{\"leaf_weight\": 0.5}""#, r#"{"leaf": "b"}"#]);
    let weights: Vec<Option<f64>> = data.rows.iter().map(|row| row.leaf_weight).collect();
    assert_eq!(weights, [Some(2.0), Some(0.5), None]);
    assert_eq!(data.rows.iter().map(|row| data.often(row)).collect::<Vec<_>>(), [6.0, 1.5, 3.0]);
    let other = read_rows(&[r#"{"leaf": "a"}"#, r#"{"leaf_weight": 0.5}"#, r#"{"leaf": "b"}"#]);
    assert_ne!(data.hash(), other.hash(), "a checkpoint of the one is none of the other");

    let turns = vec![espalier_dataset::Turn::new("user", "Hi"), espalier_dataset::Turn::new("assistant", "One")];
    let row = espalier_dataset::Row {
        turns,
        leaf_weight: Some(1.5),
        verdict: espalier_dataset::Verdict::Accepted,
        ..espalier_dataset::Row::default()
    };
    let table = folder.0.path().join("rows.parquet");
    espalier_dataset::write_parquet(&table, &[row]).unwrap();
    assert_eq!(read(&[source(&[table])], &config()).unwrap().rows[0].leaf_weight, Some(1.5));
}
