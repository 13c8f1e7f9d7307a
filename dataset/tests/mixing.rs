//! Mixtures and splits: what is taken, that it repeats, and that evaluation shares nothing with training.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use espalier_dataset::{
    MixRecipe, MixSummary, Recipe, Row, RowSource, Split, SplitBy, Turn, Verdict, mix, mix_recipe, read_parquet, split,
    write_parquet,
};
use proptest::prelude::*;

fn row(leaf: &str, index: u64) -> Row {
    Row {
        id: format!("{leaf}-{index}"),
        leaf: leaf.into(),
        kind: "freeform_skill".into(),
        index,
        turns: vec![Turn::new("user", format!("{leaf} {index}?")), Turn::new("assistant", "Yes.")],
        verdict: Verdict::Accepted,
        ..Row::default()
    }
}

fn mixed(folder: &Path, recipe: &str) -> Result<(MixSummary, Vec<String>), String> {
    let (file, out) = (folder.join("recipe.yaml"), folder.join("out.jsonl"));
    std::fs::write(&file, recipe).unwrap();
    let short =
        |error: espalier_dataset::DatasetError| error.to_string().replace(&format!("{}/", folder.display()), "");
    let recipe = MixRecipe::read(&file).map_err(short)?;
    let summary = mix(&recipe, folder, &out).map_err(short)?;
    let text = std::fs::read_to_string(&out).unwrap();
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    Ok((summary, text.lines().map(id).collect()))
}

fn sources(folder: &Path) {
    let rows: Vec<Row> = [("a/x", 40), ("a/y", 20), ("b", 10)]
        .into_iter()
        .flat_map(|(leaf, count)| (0..count).map(move |index| row(leaf, index)))
        .chain([Row { verdict: Verdict::Rejected, ..row("b", 99) }, Row { split: Split::HeldOut, ..row("b", 98) }])
        .collect();
    write_parquet(&folder.join("rows.parquet"), &rows).unwrap();
    let replay: Vec<String> = (0..50)
        .map(|index| format!(r#"{{"instruction": "Q{index}", "output": "A{index}", "id": "r{index}"}}"#))
        .collect();
    std::fs::write(folder.join("replay.jsonl"), replay.join("\n")).unwrap();
}

#[test]
fn ratios_caps_and_parts_are_kept_and_the_bytes_repeat() {
    let folder = tempfile::tempdir().unwrap();
    sources(folder.path());
    let recipe = "espalier: 1\nseed: 7\nsystem: Be kind.\nsources:\n\
                  - {rows: rows.parquet, leaves: {a: 0.5, a/y: 2}, most_per_leaf: 30}\n\
                  - {rows: replay.jsonl, part: 0.25}\n";
    let (summary, ids) = mixed(folder.path(), recipe).unwrap();
    // x half of 40, y twice 20 but at most 30, b all of 10; then a third of that again.
    let leaves: BTreeMap<&str, u64> =
        summary.sources[0].leaves.iter().map(|(leaf, count)| (leaf.as_str(), *count)).collect();
    assert_eq!(leaves, BTreeMap::from([("a/x", 20), ("a/y", 30), ("b", 10)]));
    assert_eq!((summary.lines, summary.sources[0].repeated, summary.sources[1].taken), (80, 10, 20));
    assert_eq!(ids.len(), 80);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 70);
    let first: HashSet<char> = ids[..12].iter().filter_map(|id| id.chars().next()).collect();
    assert!(first.len() > 1, "sources are mixed: {ids:?}");
    let text = std::fs::read(folder.path().join("out.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_slice(text.split(|&byte| byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(line["messages"][0]["content"], "Be kind.");
    assert_eq!(mixed(folder.path(), recipe).unwrap().1, ids);
    assert_eq!(std::fs::read(folder.path().join("out.jsonl")).unwrap(), text);
    assert_ne!(mixed(folder.path(), &recipe.replace("seed: 7", "seed: 8")).unwrap().1, ids);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 4, "nothing is left behind: {files:?}");
}

#[test]
fn lines_weigh_what_their_leaf_says_and_a_mixture_spends_it() {
    let folder = tempfile::tempdir().unwrap();
    let weighed = |leaf: &str, count: u64, leaf_weight| {
        (0..count).map(|index| Row { leaf_weight, ..row(leaf, index) }).collect::<Vec<_>>()
    };
    let rows = [weighed("a", 20, Some(1.75)), weighed("b", 10, Some(0.3)), weighed("c", 5, None)].concat();
    write_parquet(&folder.path().join("rows.parquet"), &rows).unwrap();
    let taken = |source: &str| {
        let (summary, _) = mixed(folder.path(), &format!("espalier: 1\nsources: [{source}]\n")).unwrap();
        let text = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
        assert!(!text.contains("leaf_weight"), "training would weigh them again");
        let of = |leaf: &str| summary.sources[0].leaves.get(leaf).copied().unwrap_or_default();
        [of("a"), of("b"), of("c")]
    };
    assert_eq!(taken("{rows: rows.parquet}"), [35, 3, 5]);
    assert_eq!(taken("{rows: rows.parquet, leaves: {a: 0.5, c: 2}}"), [10, 3, 10], "the recipe's word counts");
    assert_eq!(taken("{rows: rows.parquet, share: 2}"), [70, 6, 10]);
    // Converted lines carry the weight, and weigh the same.
    let lines = folder.path().join("lines.jsonl");
    espalier_dataset::write_messages_jsonl(&lines, &rows).unwrap();
    assert_eq!(taken("{rows: lines.jsonl}"), [35, 3, 5]);
    // A recipe of InstructLab's speaks of whole files.
    let file = folder.path().join("theirs.yaml");
    std::fs::write(&file, "datasets: [{path: lines.jsonl, sampling_size: 1.0}]\nmetadata: {sys_prompt: ''}\n").unwrap();
    for legacy in [false, true] {
        let out = folder.path().join("out.jsonl");
        let found = mix_recipe(&Recipe::read(&file).unwrap(), folder.path(), legacy, &out).unwrap();
        assert_eq!((found.lines, found.sources[0].repeated), (35, 0));
        assert!(!std::fs::read_to_string(&out).unwrap().contains("leaf_weight"));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    sources(folder.path());
    let cases = [
        "",
        "espalier: 1\nsources: []\n",
        "espalier: 2\nsources: [{rows: rows.parquet}]\n",
        "espalier: 1\nsources: [{rows: rows.parquet, lines: 3, share: 2}]\n",
        "espalier: 1\nsources:\n- rows: rows.parquet\n  partt: 0.2\n",
        "espalier: 1\nsources: [{rows: rows.parquet, part: 0.2}]\n",
        "espalier: 1\nsources: [{rows: rows.parquet}, {rows: replay.jsonl, part: 1}]\n",
        "espalier: 1\nsources: [{rows: rows.parquet, share: -1}]\n",
        "espalier: 1\nsources: [{rows: rows.parquet, leaves: {a: .nan}}]\n",
        "espalier: 1\nsources: [{rows: none.parquet}]\n",
        "espalier: 1\nsources: [{rows: rows.parquet, lines: 0}]\n",
        "espalier: 1\nsources: [{rows: replay.jsonl, form: phase07}]\n",
    ];
    let words = cases.map(|recipe| format!("{recipe}=> {}\n", mixed(folder.path(), recipe).unwrap_err()));
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn a_recipe_of_instructlab_takes_each_line_once_before_any_twice() {
    let folder = tempfile::tempdir().unwrap();
    sources(folder.path());
    let file = folder.path().join("recipe.yaml");
    std::fs::write(&file, "datasets:\n- {path: replay.jsonl, sampling_size: 0.5}\n- {path: replay.jsonl, sampling_size: 60}\nmetadata: {sys_prompt: Be kind.}\n").unwrap();
    let recipe = Recipe::read(&file).unwrap();
    let out = folder.path().join("out.jsonl");
    let ours = mix_recipe(&recipe, folder.path(), false, &out).unwrap();
    assert_eq!(
        ours.sources.iter().map(|source| (source.taken, source.repeated)).collect::<Vec<_>>(),
        [(25, 0), (60, 10)]
    );
    let legacy = mix_recipe(&recipe, folder.path(), true, &out).unwrap();
    let found: Vec<(u64, u64)> = legacy.sources.iter().map(|source| (source.taken, source.repeated)).collect();
    assert_eq!((found[0].0, found[1].0), (25, 60));
    assert!(found[0].1 > 0, "draws with replacement have twins");
}

fn chunked(index: u64, document: &str, chunk: &str) -> Row {
    Row { document: Some(document.into()), chunk: Some(chunk.into()), kind: "knowledge".into(), ..row("k", index) }
}

#[test]
fn a_shared_chunk_is_never_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let [table, out] = ["rows.parquet", "split.parquet"].map(|name| folder.path().join(name));
    // Two documents share a chunk, under other white space, and one question is asked of two more.
    let mut rows: Vec<Row> =
        (0..40).map(|index| chunked(index, &format!("d{}", index / 4), &format!("chunk {}", index / 2))).collect();
    rows[0].chunk = Some("The planted  chunk".into());
    rows[20].chunk = Some("the planted chunk".into());
    rows[30].turns = rows[36].turns.clone();
    write_parquet(&table, &rows).unwrap();
    let source = RowSource::find(&table, None).unwrap();
    let mut sides = HashSet::new();
    for seed in 0..20 {
        let summary = split(&source, SplitBy::Document, 0.3, seed, &out).unwrap();
        let rows = read_parquet(&out).unwrap();
        assert_eq!((summary.train + summary.held_out, summary.groups, summary.largest_group), (40, 8, 8));
        assert!((4..=12).contains(&summary.held_out), "{summary:?}");
        let side = |at: usize| rows[at].split;
        for document in rows.chunks(4) {
            assert!(document.iter().all(|row| row.split == document[0].split));
        }
        assert_eq!(side(0), side(20), "the planted chunk");
        assert_eq!(side(30), side(36), "the planted question");
        sides.insert(side(0).name());
        let again = folder.path().join("again.parquet");
        split(&source, SplitBy::Document, 0.3, seed, &again).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
    }
    assert_eq!(sides.len(), 2, "the seed decides");
}

#[test]
fn rows_that_all_hang_together_cannot_be_split() {
    let folder = tempfile::tempdir().unwrap();
    let [table, out] = ["rows.parquet", "split.parquet"].map(|name| folder.path().join(name));
    let rows: Vec<Row> = (0..10).map(|index| chunked(index, "d", &format!("chunk {index}"))).collect();
    write_parquet(&table, &rows).unwrap();
    let source = RowSource::find(&table, None).unwrap();
    let error = split(&source, SplitBy::Document, 0.3, 1, &out).unwrap_err().to_string();
    assert!(error.contains("let less hang together") && !out.exists(), "{error}");
    assert_eq!(split(&source, SplitBy::Chunk, 0.3, 1, &out).unwrap().held_out, 3);
    assert!(split(&source, SplitBy::Chunk, 1.0, 1, &out).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_split_shares_a_chunk_or_a_question(
        rows in proptest::collection::vec((0_u8..6, 0_u8..12, 0_u8..30), 2..60), seed: u64, share in 0.1_f64..0.6
    ) {
        let folder = tempfile::tempdir().unwrap();
        let [table, out] = ["rows.parquet", "split.parquet"].map(|name| folder.path().join(name));
        let rows: Vec<Row> = rows
            .into_iter()
            .enumerate()
            .map(|(at, (document, chunk, question))| Row {
                id: at.to_string(),
                ..chunked(question.into(), &format!("d{document}"), &format!("c{chunk}"))
            })
            .collect();
        write_parquet(&table, &rows).unwrap();
        if split(&RowSource::find(&table, None).unwrap(), SplitBy::Chunk, share, seed, &out).is_ok() {
            let rows = read_parquet(&out).unwrap();
            let of = |side: Split, key: fn(&Row) -> String| -> HashSet<String> {
                rows.iter().filter(|row| row.split == side).map(key).collect()
            };
            for key in [|row: &Row| row.chunk.clone().unwrap(), |row: &Row| row.turns[0].content.clone()] {
                prop_assert!(of(Split::Train, key).is_disjoint(&of(Split::HeldOut, key)));
            }
        }
    }
}
