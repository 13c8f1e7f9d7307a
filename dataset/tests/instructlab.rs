//! `InstructLab`'s forms: lines as instructlab-sdg writes them, distractors that do not give the answer away, folders, recipes.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use espalier_dataset::{
    AuxiliaryInstructions, DatasetError, FolderOptions, KnowledgeForms, Recipe, Row, RowSource, SamplingSize, SeedPair,
    Split, Turn, Verdict, write_folder, write_parquet,
};
use serde_json::Value;

fn given(rows: &[Row]) -> impl Iterator<Item = Result<Row, DatasetError>> + use<> {
    let rows = rows.to_vec();
    rows.into_iter().map(Ok)
}

fn knowledge(index: u64, chunk: &str, question: &str, answer: &str) -> Row {
    Row {
        id: format!("k{index}"),
        leaf: "knowledge/ponds".into(),
        kind: "knowledge".into(),
        index,
        turns: vec![Turn::new("user", question), Turn::new("assistant", answer)],
        chunk: Some(chunk.into()),
        verdict: Verdict::Accepted,
        ..Row::default()
    }
}

/// Made by scripts/golden-instructlab-forms.py.
#[test]
fn the_lines_of_both_phases_are_those_of_instructlab() {
    let golden: Value = serde_json::from_str(include_str!("golden/instructlab_forms.json")).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows: Vec<Row> = golden["rows"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(at, row)| Row {
            context: (row["document"] != row["raw_document"]).then(|| text(row, "document")),
            context_kind: Some(text(row, "dataset_type")),
            domain: Some(text(row, "domain")),
            ..knowledge(at as u64, &text(row, "raw_document"), &text(row, "question"), &text(row, "response"))
        })
        .collect();
    let instructions: AuxiliaryInstructions = serde_json::from_value(golden["instructions"].clone()).unwrap();
    let forms = |rows: &[Row]| KnowledgeForms::gather(given(rows), 7, instructions.clone()).unwrap();
    // Their lines stand by kind, ours by row.
    let sorted = |mut lines: Vec<Value>| {
        lines.sort_by_key(Value::to_string);
        lines
    };
    let plain = |line: &espalier_dataset::TrainingLine| {
        let own = ["sdg_document", "domain", "dataset", "raw_document", "dataset_type"];
        let metadata: serde_json::Map<String, Value> =
            own.iter().filter_map(|&key| Some((key.to_owned(), line.metadata.get(key)?.clone()))).collect();
        serde_json::json!({"messages": line.messages, "metadata": metadata, "unmask": line.unmask})
    };
    let theirs = |key: &str| {
        let lines = golden[key].as_array().unwrap().iter().cloned();
        sorted(
            lines
                .map(|line| {
                    let metadata = &line["metadata"];
                    let keys = ["sdg_document", "domain", "dataset", "raw_document", "dataset_type"];
                    let metadata: serde_json::Map<String, Value> =
                        keys.iter().filter_map(|&key| Some((key.to_owned(), metadata.get(key)?.clone()))).collect();
                    let messages: Vec<Value> = line["messages"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|turn| serde_json::json!({"role": turn["role"], "content": turn["content"]}))
                        .collect();
                    serde_json::json!({"messages": messages, "metadata": metadata, "unmask": line["unmask"]})
                })
                .collect(),
        )
    };
    let all = forms(&rows);
    assert_eq!(
        sorted(rows.iter().flat_map(|row| all.phase07(row)).map(|line| plain(&line)).collect()),
        theirs("phase07")
    );
    let two = forms(&rows[..2]);
    let ours = rows[..2].iter().flat_map(|row| two.phase10(row)).map(|line| plain(&line)).collect();
    assert_eq!(sorted(ours), theirs("phase10_of_first_two"));
}

#[test]
fn distractors_never_hold_the_golden_text_or_the_answer() {
    let facts: Vec<String> =
        (0..12).map(|pond| format!("Pond {pond} is {} metres deep and was dug by hand.", pond + 3)).collect();
    let mut rows = Vec::new();
    for (at, fact) in facts.iter().enumerate() {
        let answer = format!("It is {} metres deep and was dug by hand", at + 3);
        let index = at as u64 * 3;
        rows.push(knowledge(index, fact, "How deep is it?", &answer));
        // The same chunk, mended; and a neighbour that overlaps it.
        let mended = Row {
            context: Some(fact.to_uppercase()),
            context_kind: Some("spellcheck".into()),
            ..knowledge(index + 1, fact, "How deep?", &answer)
        };
        rows.push(mended);
        rows.push(knowledge(
            index + 2,
            &format!("{fact} {} It has carp.", facts[(at + 1) % 12]),
            "What has it?",
            "Carp of many colours",
        ));
    }
    let forms = KnowledgeForms::gather(given(&rows), 7, AuxiliaryInstructions::default()).unwrap();
    let (mut golden_lines, mut lines) = (0, 0);
    for row in &rows {
        let raft = forms.phase10(row).remove(0);
        assert!(raft.metadata["dataset"].as_str().unwrap().ends_with("_raft_p0.4"));
        let asked = &raft.messages[0].content;
        let golden = row.context.as_deref().or(row.chunk.as_deref()).unwrap();
        let documents: Vec<&str> = asked.split("Document:\n").skip(1).collect();
        assert_eq!(documents.len(), 4, "{asked}");
        let own = documents.iter().filter(|text| text.trim_end().starts_with(golden)).count();
        let leaks = documents
            .iter()
            .filter(|text| text.to_lowercase().contains(&row.chunk.as_ref().unwrap().to_lowercase()))
            .count();
        // At most the golden text itself holds the chunk.
        assert!(own <= 1 && leaks <= own, "{asked}");
        golden_lines += own;
        lines += 1;
    }
    // 40 % of 36, give or take.
    assert!((6..=24).contains(&golden_lines), "{golden_lines} of {lines}");
    // The same again, and others by another seed.
    let again = KnowledgeForms::gather(given(&rows), 7, AuxiliaryInstructions::default()).unwrap();
    let other = KnowledgeForms::gather(given(&rows), 8, AuxiliaryInstructions::default()).unwrap();
    assert!(rows.iter().all(|row| forms.phase10(row) == again.phase10(row)));
    assert!(rows.iter().any(|row| forms.phase10(row) != other.phase10(row)));
}

fn skill(leaf: &str, index: u64, answer: &str) -> Row {
    Row {
        id: format!("{leaf}{index}"),
        leaf: leaf.into(),
        kind: "freeform_skill".into(),
        turns: vec![Turn::new("user", format!("Q{index}")), Turn::new("assistant", answer)],
        verdict: Verdict::Accepted,
        ..Row::default()
    }
}

fn options(legacy: bool) -> FolderOptions {
    FolderOptions {
        seed: 7,
        system_prompt: "Be kind.".into(),
        instructions: AuxiliaryInstructions::default(),
        skill_lines: SamplingSize::Lines(3),
        legacy,
        seeds: None,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_folder_holds_what_ilab_leaves_behind() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("rows.parquet");
    let mut rows = vec![
        knowledge(0, "The pond is deep.", "How is it?", "Deep."),
        skill("skills/a/b_c", 0, "A0"),
        skill("skills/a_b/c", 0, "A0"),
        skill("skills/a/b_c", 1, " "),
        Row { verdict: Verdict::Rejected, ..skill("skills/a/b_c", 2, "A2") },
        Row { split: Split::HeldOut, ..skill("skills/a/b_c", 3, "A3") },
    ];
    rows.extend((4..9).map(|index| skill("skills/d", index, "A")));
    write_parquet(&table, &rows).unwrap();
    let source = RowSource::find(&table, None).unwrap();
    let out = folder.path().join("out");
    let summary = write_folder(&source, &options(false), &out).unwrap();
    assert_eq!((summary.leaf_files, summary.empty, summary.train), (5, 1, 8));
    assert_eq!((summary.test, summary.held_out), (0, 1));
    assert!(!out.join("test.jsonl").exists(), "there are no seeds in rows");
    let mut names: Vec<String> = std::fs::read_dir(out.join("node_datasets"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    insta::assert_snapshot!(names.join("\n"));
    insta::assert_snapshot!("recipe", std::fs::read_to_string(out.join("skills_recipe.yaml")).unwrap());
    insta::assert_snapshot!(
        "knowledge_lines",
        std::fs::read_to_string(out.join("knowledge_train_msgs.jsonl")).unwrap()
    );
    let skills = lines(&out.join("skills_train_msgs.jsonl"));
    // Two of phase 1.0; three of each skill, of which two leaves have one line.
    assert_eq!(skills.len(), 2 + 3 + 3 + 3);
    for line in &skills {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["messages", "metadata", "id", "unmask"]);
        assert_eq!(line["messages"][0], serde_json::json!({"role": "system", "content": "Be kind."}));
        assert!(line["metadata"].is_string());
    }
    let ids: std::collections::HashSet<&str> = skills
        .iter()
        .filter(|line| line["id"].as_str().unwrap().starts_with("skills/d"))
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 3, "no line comes twice before all came once");
    assert_eq!(
        lines(&out.join("held_out.jsonl")),
        [serde_json::json!({"system": "Be kind.", "user": "Q3", "assistant": "A3"})]
    );
    // A second folder of the same rows is the same bytes; the first is not written over.
    let again = folder.path().join("again");
    write_folder(&source, &options(false), &again).unwrap();
    let bytes = |folder: &Path| std::fs::read(folder.join("skills_train_msgs.jsonl")).unwrap();
    assert_eq!(bytes(&out), bytes(&again));
    assert!(write_folder(&source, &options(false), &out).unwrap_err().to_string().contains("exists already"));
    let legacy = folder.path().join("legacy");
    let summary = write_folder(&source, &options(true), &legacy).unwrap();
    assert_eq!(summary.skills.unwrap().lines, 11);
}

#[test]
fn seeds_are_the_test_and_weights_are_in_the_recipes() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("rows.parquet");
    let heavy = |row: Row| Row { leaf_weight: Some(2.0), ..row };
    let mut rows = vec![heavy(knowledge(0, "The pond is deep.", "How is it?", "Deep.")), skill("skills/a", 0, "A")];
    rows.extend((0..5).map(|index| heavy(skill("skills/d", index, "A"))));
    rows.push(Row { split: Split::HeldOut, ..skill("skills/d", 9, "A9") });
    write_parquet(&table, &rows).unwrap();
    let seed = |user: &str| SeedPair { user: user.into(), assistant: "Yes.".into() };
    let options = FolderOptions { seeds: Some(vec![seed("Is it?\nA text."), seed("Was it?")]), ..options(false) };
    let out = folder.path().join("out");
    let summary = write_folder(&RowSource::find(&table, None).unwrap(), &options, &out).unwrap();
    assert_eq!((summary.test, summary.held_out), (2, 1));
    let line =
        |user: &str, assistant: &str| serde_json::json!({"system": "Be kind.", "user": user, "assistant": assistant});
    assert_eq!(lines(&out.join("test.jsonl")), [line("Is it?\nA text.", "Yes."), line("Was it?", "Yes.")]);
    assert_eq!(lines(&out.join("held_out.jsonl")), [line("Q9", "A9")]);
    let sizes = |name: &str| -> Vec<SamplingSize> {
        Recipe::read(&out.join(name)).unwrap().datasets.iter().map(|file| file.sampling_size).collect()
    };
    assert_eq!(sizes("knowledge_recipe.yaml"), [SamplingSize::Share(2.0)]);
    assert_eq!(sizes("skills_recipe.yaml"), [SamplingSize::Share(2.0), SamplingSize::Lines(3), SamplingSize::Lines(6)]);
    let mixed = std::fs::read_to_string(out.join("skills_train_msgs.jsonl")).unwrap();
    // Each of two lines twice; three of one, over and over; six of five.
    assert_eq!(mixed.lines().count(), 4 + 3 + 6);
    assert!(!mixed.contains("leaf_weight"), "the recipe has weighed them");
}

#[test]
fn nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("rows.parquet");
    write_parquet(&table, &[Row { verdict: Verdict::Rejected, ..skill("a", 0, "A") }]).unwrap();
    let out = folder.path().join("out");
    let error = write_folder(&RowSource::find(&table, None).unwrap(), &options(false), &out).unwrap_err().to_string();
    assert!(error.contains("no row was accepted"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let recipe = folder.path().join("recipe.yaml");
    let words: Vec<String> = [
        "",
        "datasets: []\n",
        "datasets:\n- {path: a, sampling_size: much}\n",
        "datasets:\n- {path: a, sampling_size: -1.5}\n",
        "data: 1\n",
    ]
    .map(|text| {
        std::fs::write(&recipe, text).unwrap();
        let error = Recipe::read(&recipe).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    })
    .into();
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn instructions_are_read_from_a_pipeline_or_alone() {
    let alone = "spellcheck: [Mend it.]\n";
    let pipeline =
        "version: '1.0'\nblocks: []\ndatamixing:\n  auxiliary_instructions:\n    spellcheck:\n    - Mend it.\n";
    assert_eq!(AuxiliaryInstructions::read(alone).unwrap(), AuxiliaryInstructions::read(pipeline).unwrap());
    assert!(AuxiliaryInstructions::read("spellcheck: []\n").unwrap_err().contains("no instruction"));
    assert!(AuxiliaryInstructions::read("[1]").is_err());
}
