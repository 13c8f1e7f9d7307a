//! Skills trees with faults in a leaf.

use crate::binary::Bench;
use std::fs;

const STORY: &str = "tree/skills/go_on_with_a_story/qna.yaml";

/// A pipeline over a copy of the tree whose one file was changed.
fn run(bench: &Bench) -> crate::binary::Said {
    let text = format!(
        "espalier: 1\nstudent: tests/assets/model/stories260K.bin\nstages: {{generate: {{taxonomy: {}, shots: 0}}}}\n",
        bench.text("tree")
    );
    let file = bench.write("tree.yaml", text);
    bench.pipeline(&file, "run")
}

#[test]
fn a_fault_in_a_leaf_is_found_before_anything_runs_and_mended_in_place() {
    let bench = Bench::new();
    bench.tree("tree");
    let good = fs::read_to_string(bench.path(STORY)).expect("a leaf");
    let document = fs::read(bench.path("tree/knowledge/the_pond/pond.md")).expect("a document");
    let test = fs::read(bench.path("tree/skills/go_on_with_a_story/test.jsonl")).expect("a test");
    let mut words = String::new();
    let mut refused = |name: &str| {
        let said = run(&bench);
        words += &format!("{name}\n{}\n\n", said.refusal());
        assert_eq!(said.code, 2, "{name}");
        assert!(bench.results("run").is_empty(), "{name}: something was made");
    };
    let few: String = good.split("  - question: Once upon a time, there was a red fish").next().unwrap_or("").into();
    bench.write(STORY, few.replace("espalier: 1", "version: 2"));
    refused("too few seeds");
    bench.write(STORY, good.replace("task_description", "task_descripton"));
    refused("an unknown key");
    bench.write(STORY, good.replace("{{ size }}", "{{ colour }}"));
    refused("a slot that is not there");
    bench.write(STORY, good.replace("samples: 24", "samples: many"));
    refused("a word for a number");
    bench.write(STORY, &good);
    fs::remove_file(bench.path("tree/knowledge/the_pond/pond.md")).expect("a document");
    refused("a document that is not there");
    bench.write("tree/knowledge/the_pond/pond.md", document);
    bench.write("tree/skills/go_on_with_a_story/test.jsonl", "{\"question\": \"Who?\"}\n");
    refused("a test without its answer");
    bench.write("tree/skills/go_on_with_a_story/test.jsonl", test);
    insta::assert_snapshot!(words);
    let said = run(&bench);
    assert_eq!(said.code, 0, "{}", said.err);
}
