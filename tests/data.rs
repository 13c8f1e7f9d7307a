//! The words of `pipeline data`: looking at rows, comparing, converting, mixing, splitting.
#![allow(clippy::unwrap_used)]

#[path = "binary/mod.rs"]
mod binary;

use binary::Bench;
use espalier_dataset::{Origin, Row, Score, Split, Turn, Verdict, Versions, write_parquet};

fn row(leaf: &str, index: u64, question: &str, answer: &str) -> Row {
    Row {
        id: format!("{:016x}", 0x3f9a_1c00_0000_0000_u64 + index * 0x0101_0000_0000),
        leaf: leaf.into(),
        kind: "knowledge".into(),
        index,
        turns: vec![Turn::new("user", question), Turn::new("assistant", answer)],
        slots: "{}".into(),
        seed_ids: vec!["0".into(), "2".into()],
        document: Some("pond.md".into()),
        chunk_hash: Some(format!("ab{index}2")),
        chunk: Some(format!("# A pond\n\nIt is nine metres deep, part {index}.")),
        flow: "knowledge".into(),
        flow_version: "v1".into(),
        block: "question".into(),
        parameters: r#"{"temperature":0.7}"#.into(),
        prompt_hash: "cd34".into(),
        model: "tiny (5e6f)".into(),
        sampling_seed: 7,
        prompt_tokens: 90 + index as u32,
        answer_tokens: 4 + index as u32,
        answer: format!("Q: {question} A: {answer}"),
        scores: vec![Score { block: "faithful".into(), score: 0.875 }],
        verifier: Some("numeric: 9 is 9".into()),
        verdict: Verdict::Accepted,
        reason: "faithful".into(),
        licenses: vec!["CC-BY-4.0".into()],
        ..Row::default()
    }
}

fn rows() -> Vec<Row> {
    let four = "Which is it?\nA) one\nB) two\nC) three\nD) four";
    vec![
        row("knowledge/ponds", 0, "How deep is it?", "Nine metres."),
        row("knowledge/ponds", 1, "Where are carp?", "In the pond."),
        Row {
            verdict: Verdict::Rejected,
            reason: "not faithful: the text does not say so".into(),
            ..row("knowledge/ponds", 2, "How old is it?", "A century.")
        },
        Row { split: Split::HeldOut, ..row("knowledge/wells", 3, "How deep is the well?", "It has no floor.") },
        row("knowledge/wells", 4, four, "B) two"),
    ]
}

#[test]
fn rows_are_looked_at() {
    let bench = Bench::new();
    let table = bench.text("rows.parquet");
    write_parquet(table.as_ref(), &rows()).unwrap();
    let mut words = String::new();
    for arguments in [
        vec!["show", &table, "--limit", "1"],
        vec!["show", &table, "--leaf", "knowledge/ponds", "--text", "CARP"],
        vec!["show", &table, "--rejected"],
        vec!["show", &table, "--reason", "does not say", "--accepted"],
        vec!["sample", &table, "--count", "2", "--seed", "3"],
        vec!["stats", &table],
        vec!["stats", &table, "--by", "leaf,reason"],
        vec!["stats", &table, "--by", "verdict", "--leaf", "knowledge"],
        vec!["stats", &table, "--by", "question"],
        vec!["funnel", &table],
        vec!["why", &table, "3f9a1d"],
        vec!["why", &table, "3f9a1e"],
        vec!["why", &table, "3f9a"],
        vec!["why", &table, "77"],
        vec!["card", &table],
        vec!["show", &table, "--version", "2"],
    ] {
        let said = bench.run(&[&["data"], arguments.as_slice()].concat());
        words += &format!("$ data {}\n{}{}({})\n\n", arguments.join(" "), said.out, said.err, said.code);
    }
    insta::assert_snapshot!(words.replace(&table, "rows.parquet"));
    let json = bench.run(&["data", "stats", &table, "--json"]).out;
    let result: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(result["result"]["leaves"]["knowledge/ponds"]["accepted"], 2, "{json}");
}

#[test]
fn versions_are_listed_and_compared() {
    let bench = Bench::new();
    let folder = bench.text("set");
    let versions = Versions::new(&folder);
    versions.add(rows().into_iter().map(Ok), Origin { taxonomy: Some("9c".into()), ..Origin::default() }).unwrap();
    let mut changed = rows();
    changed[0].reason = "faithful and short".into();
    changed.remove(1);
    changed.push(row("knowledge/wells", 9, "New?", "Yes."));
    versions.add(changed.into_iter().map(Ok), Origin::default()).unwrap();
    let mut words = String::new();
    for arguments in [
        vec!["versions", &folder, "--verify"],
        vec!["diff", &folder],
        vec!["diff", &folder, "--from", "2", "--to", "1", "--limit", "0"],
        vec!["diff", &folder, "--from", "3"],
        vec!["show", &folder, "--version", "1", "--limit", "1"],
    ] {
        let said = bench.run(&[&["data"], arguments.as_slice()].concat());
        words += &format!("$ data {}\n{}{}({})\n\n", arguments.join(" "), said.out, said.err, said.code);
    }
    insta::assert_snapshot!(words.replace(&folder, "set"));
}

#[test]
fn rows_are_converted_mixed_and_split() {
    let bench = Bench::new();
    let table = bench.text("rows.parquet");
    write_parquet(table.as_ref(), &rows()).unwrap();
    let [ilab, seeds, tasks, skills] = ["ilab", "seeds", "tasks", "skills.jsonl"].map(|name| bench.text(name));
    let [mixed, legacy, split] = ["mixed.jsonl", "legacy.jsonl", "split.parquet"].map(|name| bench.text(name));
    let ours = bench.write(
        "ours.yaml",
        "espalier: 1\nsources:\n- {rows: rows.parquet, form: phase10, share: 0.5}\n- {rows: skills.jsonl, part: 0.5}\n",
    );
    let empty = bench.write("empty.yaml", "datasets: []\nmetadata: {sys_prompt: ''}\n");
    let recipe = bench.text("ilab/skills_recipe.yaml");
    let mut words = String::new();
    for arguments in [
        vec!["convert", &table, "--to", "skills_train_msgs", "--out", &skills],
        vec!["convert", &table, "--to", "instructlab", "--out", &ilab, "--system", "Be kind."],
        vec!["convert", &table, "--to", "instructlab", "--out", &ilab],
        vec!["convert", &table, "--to", "instructlab", "--out", &seeds, "--taxonomy", "taxonomy/examples/tiny"],
        vec!["convert", &table, "--to", "alpaca", "--out", &seeds, "--taxonomy", "taxonomy/examples/tiny"],
        vec!["convert", &table, "--to", "lm_eval", "--out", &tasks],
        vec!["mix", &ours, "--out", &mixed],
        vec!["mix", &ours, "--out", &mixed, "--legacy"],
        vec!["mix", &recipe, "--out", &legacy, "--legacy"],
        vec!["mix", &empty, "--out", &mixed],
        vec!["split", &table, "--held-out", "0.4", "--by", "chunk", "--out", &split],
        vec!["split", &table, "--held-out", "0.4", "--out", &split],
    ] {
        let said = bench.run(&[&["data"], arguments.as_slice()].concat());
        words += &format!("$ data {}\n{}{}({})\n\n", arguments.join(" "), said.out, said.err, said.code);
    }
    insta::assert_snapshot!(words.replace(&bench.text(""), ""));
    let test = std::fs::read_to_string(bench.path("seeds/test.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(test.lines().next().unwrap()).unwrap();
    let user = "Where did the frog live?\nA green frog lived in the pond.";
    assert_eq!(first, serde_json::json!({"system": "", "user": user, "assistant": "In the pond."}));
    assert_eq!(test.lines().count(), 6, "the seeds of both leaves");
    let held_out = std::fs::read_to_string(bench.path("seeds/held_out.jsonl")).unwrap();
    assert!(held_out.contains("How deep is the well?") && !held_out.contains("frog"), "{held_out}");
}

#[test]
fn another_model_judges() {
    let bench = Bench::new();
    let (tree, model) = ("taxonomy/examples/tiny", "tests/assets/model/stories260K.bin");
    let judge = bench.text("judge.gguf");
    assert_eq!(bench.run(&["quantize", model, "--type", "F16", "--out", &judge]).code, 0);
    let engines = |name: &str, more: &[&str]| -> usize {
        let out = bench.text(name);
        let generate = ["generate", "--taxonomy", tree, "--model", model, "--out", &out, "--flow", "simple"];
        let said = bench.run(&[&generate[..], more].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let version = std::fs::read_to_string(bench.path(name).join("versions/1.json")).expect("a version");
        let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
        version["origin"]["engines"].as_array().expect("a list").len()
    };
    assert_eq!(engines("alone", &[]), 1);
    assert_eq!(engines("judged", &["--judge", &judge]), 2);
    assert_eq!(engines("itself", &["--judge", model]), 1, "the teacher is not loaded twice");
    // Both share the memory that may be taken.
    let least = |more: &[&str], memory: &str| -> Option<String> {
        let out = bench.text("bounded");
        let generate = ["generate", "--taxonomy", tree, "--model", model, "--out", &out, "--flow", "simple"];
        let said = bench.run(&[&generate[..], &["--memory", memory], more].concat());
        let words = said.err.split_once("bytes are less than the ");
        let (least, of_what) = words?.1.split_once(" that the weights")?;
        assert_eq!(of_what.starts_with(" of 2 engines, "), !more.is_empty(), "{}", said.err);
        Some(least.to_owned())
    };
    let alone = format!("{}b", least(&[], "1kB").expect("too little"));
    assert!(least(&["--judge", &judge], &alone).is_some());
    assert_eq!(least(&[], &alone), None, "there is room for a page");
}

#[test]
fn rows_are_chosen_and_refused_by_vectors() {
    let bench = Bench::new();
    let (tree, model) = ("taxonomy/examples/tiny", "tests/assets/model/stories260K.bin");
    let generate = |name: &str, more: &[&str]| {
        let out = bench.text(name);
        let generate = ["generate", "--taxonomy", tree, "--model", model, "--out", &out, "--flow", "simple"];
        let few = ["--samples", "3", "--set", "rounds=1"];
        let said = bench.run(&[&generate[..], &few, more].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let version = std::fs::read_to_string(bench.path(name).join("versions/1.json")).expect("a version");
        let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
        let engines: Vec<String> = serde_json::from_value(version["origin"]["engines"].clone()).expect("a list");
        let rows = espalier_dataset::read_parquet(&bench.path(name).join("rows.parquet")).expect("rows");
        (engines, rows, said.err)
    };
    let refused = |rows: &[espalier_dataset::Row]| rows.iter().filter(|row| row.block == "meaning").count();
    let encoder = ["--embedder", "tests/assets/encoders/bert"];
    // Vectors of random weights all point nearly the same way: whatever else is written says the same.
    let (engines, rows, _) = generate("strict", &[&encoder[..], &["--set", "same_meaning=0.5"]].concat());
    assert_eq!(engines.len(), 2);
    assert!(refused(&rows) > 0);
    assert!(rows.iter().filter(|row| row.block == "meaning").all(|row| row.reason_category() == "same meaning"));
    // A model that writes chooses rows, and refuses none unless it is told from where on.
    let (engines, rows, said) = generate("writer", &["--embedder", "tests/assets/architectures/qwen3"]);
    assert_eq!((engines.len(), refused(&rows)), (2, 0));
    assert!(said.contains("the embedder is a model that writes"), "{said}");
    let out = bench.text("none");
    let alone =
        bench.run(&["generate", "--taxonomy", tree, "--model", model, "--out", &out, "--set", "same_meaning=0.9"]);
    assert_eq!(alone.code, 2, "{}", alone.err);
    assert!(alone.err.contains("`same_meaning` is about the vectors of an `embedder`"), "{}", alone.err);
}

#[test]
fn a_probe_says_what_a_generation_will_cost() {
    let bench = Bench::new();
    let (tree, model, out) = ("taxonomy/examples/tiny", "tests/assets/model/stories260K.bin", bench.text("rows"));
    let generate = ["generate", "--taxonomy", tree, "--model", model, "--out", &out, "--flow", "simple", "--json"];
    let said = bench.run(&[&generate[..], &["--probe"]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let last = said.out.lines().last().expect("a result");
    let found: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let range =
        |name: &str| ["low", "likely", "high"].map(|end| found["result"][name][end].as_f64().expect("a number"));
    for name in ["answers", "prompt_tokens", "answer_tokens", "seconds"] {
        let [low, likely, high] = range(name);
        assert!(0.0 < low && low < likely && likely < high, "{name}: {last}");
    }
    assert!(!bench.path("rows/rows.parquet").exists(), "a probe writes no rows");
    assert!(bench.path("rows/.work/answers.jsonl").exists(), "its answers are kept");
}
