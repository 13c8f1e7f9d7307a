//! The weight of a leaf, from its file to how often training takes its rows, by the binary on the 260K model.

mod binary;

use binary::Bench;
use espalier_train::metrics::read_losses;
use std::collections::BTreeMap;
use std::fs;

const MODEL: &str = "tests/assets/model/stories260K.bin";
const POND: &str = "knowledge/the_pond";
const STORY: &str = "skills/go_on_with_a_story";

/// Sets the `weight` of a leaf of the tree.
fn weigh(bench: &Bench, leaf: &str, weight: &str) {
    let name = format!("tree/{leaf}/qna.yaml");
    let text = fs::read_to_string(bench.path(&name)).expect("a leaf");
    let lines = text.lines().filter(|line| !line.starts_with("weight:"));
    bench.write(&name, lines.map(|line| format!("{line}\n")).collect::<String>() + &format!("weight: {weight}\n"));
}

/// Rows of the tree in the bench; how many of each leaf are kept.
fn generate(bench: &Bench) -> BTreeMap<String, usize> {
    let (tree, out) = (bench.text("tree"), bench.text("rows"));
    let settings = ["--set", "shots=0", "--set", "max_tokens=24"];
    let said =
        bench.run(&[&["generate", "--taxonomy", &tree, "--model", MODEL, "--out", &out], &settings[..]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let mut kept = BTreeMap::new();
    for line in fs::read_to_string(bench.path("rows/messages.jsonl")).expect("rows").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let metadata: serde_json::Value = serde_json::from_str(line["metadata"].as_str().expect("text")).expect("JSON");
        *kept.entry(metadata["leaf"].as_str().expect("a leaf").to_owned()).or_default() += 1;
    }
    kept
}

/// How many target tokens of each leaf so many epochs learn, and what is said before the first step.
fn trained(bench: &Bench, name: &str, epochs: usize) -> (BTreeMap<String, usize>, String) {
    let (data, out) = (bench.text("rows/messages.jsonl"), bench.text(name));
    let epochs = format!("epochs={epochs}");
    let settings = ["--set", "rank=1", "--set", "tokens_per_step=512", "--set", "max_sequence=256", "--set", &epochs];
    let said = bench.run(&[&["train", "--model", MODEL, "--data", &data, "--out", &out], &settings[..]].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    let mut tokens = BTreeMap::new();
    for line in read_losses(&bench.path(name).join("loss.jsonl")).expect("losses") {
        for (leaf, group) in &line.leaves.0 {
            *tokens.entry(leaf.clone()).or_default() += group.target_tokens;
        }
    }
    (tokens, said.err)
}

#[test]
fn a_leaf_is_trained_on_as_often_as_it_weighs_and_no_teacher_is_asked_again() {
    let bench = Bench::new();
    bench.tree("tree");
    let kept = generate(&bench);
    assert!(kept[POND] > 2 && kept[STORY] > 4, "{kept:?}");
    let plain = fs::read(bench.path("rows/messages.jsonl")).expect("rows");
    let (once, said) = trained(&bench, "once", 1);
    assert!(!said.contains("rows an epoch"), "{said}");
    let journals = || -> BTreeMap<_, _> {
        let files = fs::read_dir(bench.path("rows/.work")).expect("a folder").flatten();
        files.map(|file| (file.file_name(), fs::read(file.path()).expect("a journal"))).collect()
    };
    let before = journals();

    weigh(&bench, POND, "2");
    weigh(&bench, STORY, "0.5");
    assert_eq!(generate(&bench), kept);
    assert!(!before.is_empty() && journals() == before, "a weight makes no other rows");
    assert_ne!(fs::read(bench.path("rows/messages.jsonl")).expect("rows"), plain);
    let (weighed, said) = trained(&bench, "weighed", 2);
    let (pond, story) = (kept[POND], kept[STORY]);
    for words in [
        format!("leaf {POND}: {pond} rows, weight 2: {}.0 rows an epoch", 2 * pond),
        format!("leaf {STORY}: {story} rows, weight 0.5: {:.1} rows an epoch", story as f64 / 2.0),
    ] {
        assert!(said.contains(&words), "{words:?} is not said: {said}");
    }
    // Two epochs take the pond four times, and each story once.
    assert_eq!([weighed[POND], weighed[STORY]], [4 * once[POND], once[STORY]]);

    let table = bench.text("rows/rows.parquet");
    for command in ["stats", "funnel"] {
        let said = bench.run(&["data", command, &table]).out;
        assert!(said.contains("an epoch") && said.contains(&format!("{}.0", 2 * pond)), "{said}");
    }
    let batch = bench.run(&["train", "--model", MODEL, "--data", &table, "--out", &bench.text("x"), "--show-batch"]);
    assert!(batch.out.contains(&format!("leaf {POND} of weight 2")), "{}{}", batch.out, batch.err);

    // A mixture spends the weights: its lines carry none.
    bench.write("recipe.yaml", "espalier: 1\nsources: [{rows: rows/rows.parquet}]\n");
    let mixed = bench.run(&["data", "mix", &bench.text("recipe.yaml"), "--out", &bench.text("mixed.jsonl"), "--json"]);
    let result: serde_json::Value = serde_json::from_str(mixed.out.lines().last().expect("a line")).expect("JSON");
    let taken = &result["result"]["mix"]["sources"][0]["leaves"];
    assert_eq!((taken[POND].as_u64(), taken[STORY].as_u64()), (Some(2 * pond as u64), Some(story.div_ceil(2) as u64)));
    assert!(!fs::read_to_string(bench.path("mixed.jsonl")).expect("lines").contains("leaf_weight"));
}

#[test]
fn a_weight_that_is_none_is_refused_with_its_line() {
    let bench = Bench::new();
    let line = |weight: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "Ho"}}], "metadata": {{"leaf_weight": {weight}}}}}"#
        ) + "\n"
    };
    let data = bench.write("rows.jsonl", line("2") + &line("0") + &line("\"much\""));
    let said = bench.run(&["train", "--model", MODEL, "--data", &data, "--out", &bench.text("out")]);
    assert_eq!(said.code, 2, "{}", said.err);
    for words in [
        "rows.jsonl:2: `metadata.leaf_weight` must be a number above zero, this is 0",
        "rows.jsonl:3: `metadata.leaf_weight` must be a number above zero, this is \"much\"",
    ] {
        assert!(said.err.contains(words), "{}", said.err);
    }
}
