//! Scores through the binary: a planted contamination is caught, a gate refuses, and unlike prompts are not compared.

mod binary;

use binary::Bench;

/// A run that trains on a question of its own test, and asks for a gain that one step cannot give.
fn planted(bench: &Bench) -> String {
    let row = "{\"messages\": [{\"role\": \"user\", \"content\": \"Who lived in the pond?\"}, \
               {\"role\": \"assistant\", \"content\": \"A frog\"}]}\n";
    let rows = bench.write("planted.jsonl", row);
    let file = format!(
        "espalier: 1\nname: planted\nstudent: tests/assets/model/stories260K.bin\nstages:\n  \
         generate: {{taxonomy: taxonomy/examples/tiny, seed: 7, shots: 0, max_tokens: 24}}\n  \
         train: {{needs: [generate], rank: 4, max_steps: 1, tokens_per_step: 512, max_sequence: 256, data: [{{file: '{rows}'}}]}}\n  \
         evaluate: {{needs: [train], compare: [base, tuned], shots: 1, max_tokens: 8, limit: 4, require: [tuned > base]}}\n  \
         report: {{needs: [train, evaluate]}}\n"
    );
    bench.write("planted.yaml", file)
}

#[test]
fn a_planted_row_is_caught_and_the_gate_refuses() {
    let bench = Bench::new();
    let file = planted(&bench);
    let run = bench.text("run");
    let said = bench.run(&["run", &file, "--run-dir", &run]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(said.err.contains("`tuned > base` is not shown on knowledge/the_pond: "), "{}", said.err);
    assert!(said.err.contains("contamination: 1 item of "), "{}", said.err);
    let page = std::fs::read_to_string(bench.path("run/report.html")).expect("a report of a refused run");
    assert!(page.contains("Refused: `tuned &gt; base` is not shown on knowledge"), "{page}");
    let again = bench.run(&["run", &file, "--run-dir", &run]);
    assert_eq!(again.code, 3, "a gate does not forget: {}", again.err);
    assert!(
        again.err.contains("is not shown on knowledge/the_pond: ") && again.err.contains("unchanged"),
        "{}",
        again.err
    );
    let text = std::fs::read_to_string(bench.path("run/eval/comparisons.json")).expect("scores");
    let scores: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let found = &scores["contamination"]["found"][0];
    assert_eq!(found["item"], "knowledge/the_pond#1");
    assert_eq!(found["hits"][0]["text"], "Who lived in the pond?");
    assert!(found["hits"][0]["row"].as_str().is_some_and(|row| row.starts_with("planted.jsonl:1")), "{found}");
    let task = &scores["tasks"][0];
    assert_eq!((&task["leaf"], &task["scores"][0]["clean"]["items"]), (&"knowledge/the_pond".into(), &3.into()));
    let items = std::fs::read(bench.path("run/eval/items.parquet")).expect("a table of items");
    assert_eq!(&items[..4], b"PAR1");

    // An embedder finds questions in other words too.
    assert!(!text.contains("\"meaning\""), "{text}");
    let run_with = |settings: &[&str]| {
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        bench.run(&["run", &file, "--run-dir", &run].into_iter().chain(set).collect::<Vec<_>>())
    };
    let embedder = "evaluate.embedder=tests/assets/encoders/bert";
    let said = run_with(&[embedder, "evaluate.same_meaning=0.97"]);
    assert_eq!(said.code, 3, "{}", said.err);
    let text = std::fs::read_to_string(bench.path("run/eval/comparisons.json")).expect("scores");
    assert!(text.contains("\"part\": \"meaning\""), "{text}");
    let alone = run_with(&["evaluate.same_meaning=0.97"]);
    assert_eq!(alone.code, 2, "{}", alone.err);
    assert!(alone.err.contains("`same_meaning` is about the vectors of an `embedder`"), "{}", alone.err);

    let results = |stem: &str| bench.text(&format!("run/eval/results_{stem}.json"));
    let unlike = bench.run(&["eval", "compare", &results("base"), &results("base_few_shot")]);
    assert_eq!(unlike.code, 2, "{}", unlike.err);
    assert!(unlike.err.contains("differs in its few-shot examples: 0 and 1"), "{}", unlike.err);
    let alike = bench.run(&["eval", "compare", &results("base"), &results("tuned")]);
    assert_eq!(alike.code, 0, "{}", alike.err);
    assert!(alike.out.contains("no difference shown between tuned and base"), "{}", alike.out);
    let required = ["eval", "compare", &results("base"), &results("tuned"), "--require", "non-inferior"];
    let refused = bench.run(&required);
    assert_eq!(refused.code, 3, "{}", refused.err);
    let rows = bench.text("planted.jsonl");
    let out = bench.text("scores");
    let model = "tests/assets/model/stories260K.bin";
    let tree = "taxonomy/examples/tiny";
    let scored =
        bench.run(&["eval", "--model", model, "--tasks", tree, "--limit", "4", "--out", &out, "--train-data", &rows]);
    assert_eq!(scored.code, 0, "{}", scored.err);
    assert!(scored.out.contains("knowledge/the_pond#1 in 1 row, first planted.jsonl:1"), "{}", scored.out);
    assert!(scored.out.contains("% of the 3 that no row holds"), "{}", scored.out);
    assert!(refused.out.contains("refused: ") && refused.out.contains("too few to tell"), "{}", refused.out);
    // A question in other words has no run of words in common with an item; which one is nearest, weights drawn at random say.
    let other = "{\"messages\": [{\"role\": \"user\", \"content\": \"Who lived inside the pond?\"}, {\"role\": \"assistant\", \"content\": \"It\"}]}\n";
    let rows = bench.write("other.jsonl", other);
    let look = ["eval", "--model", model, "--tasks", tree, "--limit", "4", "--out", &out, "--train-data", &rows];
    let words = bench.run(&look);
    assert!(words.out.contains("no contamination"), "{}{}", words.out, words.err);
    let embedder = ["--embedder", "tests/assets/encoders/bert", "--same-meaning", "0.97"];
    let meaning = bench.run(&[&look[..], &embedder].concat());
    assert_eq!(meaning.code, 0, "{}", meaning.err);
    assert!(meaning.out.contains(" in 1 row, first other.jsonl:1"), "{}", meaning.out);
    let found = std::fs::read_to_string(bench.path("scores/contamination.json")).expect("what was found");
    assert!(found.contains("\"part\": \"meaning\""), "{found}");
    // What cannot be compared is said before anything is evaluated.
    let none = bench.text("none");
    for (rows, embedder, what) in [
        (&rows[..], "tests/assets/architectures/qwen3", "the embedder is a model that writes"),
        ("none.jsonl", "tests/assets/encoders/bert", "none.jsonl"),
    ] {
        let look =
            ["eval", "--model", model, "--tasks", tree, "--out", &none, "--train-data", rows, "--embedder", embedder];
        let refused = bench.run(&look);
        assert_eq!(refused.code, 2, "{}", refused.err);
        assert!(refused.err.contains(what) && refused.out.is_empty(), "{}{}", refused.err, refused.out);
    }
}

#[test]
fn what_cannot_be_required_is_refused_where_it_stands() {
    let bench = Bench::new();
    let file = planted(&bench);
    let text = std::fs::read_to_string(&file).expect("a file");
    for (wrong, what) in [
        ("tuned beats base", "`tuned beats base` is no requirement"),
        ("tuned > teacher", "there is no model `teacher`"),
    ] {
        let file = bench.write("wrong.yaml", text.replace("tuned > base", wrong));
        let said = bench.run(&["plan", &file, "--run-dir", &bench.text("run")]);
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains("wrong.yaml:7:") && said.err.contains(what), "{}", said.err);
    }
    let said = bench.run(&["eval"]);
    assert_eq!(said.code, 2, "{}", said.err);
}

#[test]
fn a_bad_judge_is_caught_and_its_score_withheld() {
    let bench = Bench::new();
    let out = bench.text("out");
    let model = "tests/assets/model/stories260K.bin";
    let arguments = ["eval", "--model", model, "--tasks", "mt_bench", "--judge", model, "--limit", "2", "--out", &out];
    let refused = bench.run(&arguments);
    assert_eq!(refused.code, 2, "no model judges itself unasked: {}", refused.err);
    let rows = bench.write("rows.jsonl", "");
    let held = bench.run(&[&arguments[..], &["--train-data", &rows]].concat());
    assert_eq!(held.code, 2, "{}", held.err);
    assert!(held.err.contains("leave `--train-data` out"), "{}", held.err);
    let said = bench.run(&[&arguments[..], &["--judge-itself"]].concat());
    insta::assert_snapshot!("bad_judge", format!("{}{}({})", said.out, said.err, said.code));
}

#[test]
fn a_tree_is_judged_by_a_rubric() {
    let bench = Bench::new();
    let (model, tree) = ("tests/assets/model/stories260K.bin", "taxonomy/examples/quickstart/skills/dates_to_iso");
    let rubric = bench.write(
        "rubric.yaml",
        "name: right\ncriteria:\n- {name: right, question: Is it right?, levels: [wrong, right]}\n",
    );
    let out = bench.text("out");
    let judged = ["eval", "--model", model, "--judge", model, "--limit", "2", "--out", &out, "--tasks"];
    let said = bench.run(&[&judged[..], &[tree, "--judge-itself", "--rubric", &rubric]].concat());
    insta::assert_snapshot!("rubric", format!("{}{}({})", said.out, said.err, said.code));
    let said = bench.run(&[&judged[..], &["arc_easy"]].concat());
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("need no judge"), "{}", said.err);
}
