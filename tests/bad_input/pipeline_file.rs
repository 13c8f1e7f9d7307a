//! Pipeline files that cannot be run: refused before anything is made.

use crate::binary::Bench;

const HEAD: &str = "espalier: 1\nname: t\nstudent: tests/assets/model/stories260K.bin\nstages:\n";
const GENERATE: &str = "  generate: {taxonomy: taxonomy/examples/tiny}\n";

#[test]
fn each_fault_has_its_place_and_its_remedy() {
    let bench = Bench::new();
    let stages = |text: &str| format!("{HEAD}{GENERATE}{text}");
    let cases = [
        ("a missing need", stages("  train: {needs: [genrate]}\n")),
        ("no need at all", stages("  train: {}\n")),
        ("a cycle", format!("{HEAD}  generate: {{taxonomy: t, needs: [train]}}\n  train: {{needs: [generate]}}\n")),
        ("an unknown key", stages("  train:\n    needs: [generate]\n    rnak: 4\n")),
        ("an unknown key of the file", format!("{HEAD}{GENERATE}studnet: x\n")),
        ("an unknown kind of stage", stages("  trian: {needs: [generate]}\n")),
        ("a word for a number", stages("  train: {needs: [generate], rank: many}\n")),
        ("a number below zero", stages("  train: {needs: [generate], rank: -1}\n")),
        ("a rank of zero", stages("  train: {needs: [generate], rank: 0}\n")),
        ("an unknown projection", stages("  train: {needs: [generate], targets: [query]}\n")),
        ("a word for a fraction", stages("  train: {needs: [generate], learning_rate: quick}\n")),
        ("a word for a list", stages("  train: {needs: generate}\n")),
        ("an unknown file type", stages("  quantize: {needs: [generate], types: [Q4_KM]}\n")),
        ("an unknown side", stages("  evaluate: {needs: [generate], compare: [bse]}\n")),
        ("a side that no stage makes", stages("  evaluate: {needs: [generate], compare: [base, tuned]}\n")),
        ("more examples than a leaf has", stages("  evaluate: {needs: [generate], compare: [base], shots: 5}\n")),
        ("a name twice", stages(GENERATE)),
        ("a tree that is not there", format!("{HEAD}  generate: {{taxonomy: nowhere}}\n")),
        ("a stage without its tree", format!("{HEAD}  generate: {{}}\n")),
        ("an open bracket", "stages: [\n".to_owned()),
        ("a quote that is not closed", "name: \"t\nstages: {}\n".to_owned()),
        ("nothing", String::new()),
        ("another form", HEAD.replace("espalier: 1", "espalier: 2") + GENERATE),
    ];
    let mut words = String::new();
    for (name, text) in cases {
        let file = bench.write("bad.yaml", text);
        let said = bench.pipeline(&file, "run");
        words += &format!("{name}\n{}\n\n", said.refusal());
        assert_eq!(said.code, 2, "{name}");
        assert!(!bench.path("run").exists(), "{name}: a run folder was made");
    }
    insta::assert_snapshot!(words);
}

#[test]
fn values_of_the_command_line_are_checked_in_the_same_words() {
    let bench = Bench::new();
    let set = |assignment: &str| {
        let run = bench.text("run");
        bench.run(&["run", "pipelines/tiny.yaml", "--set", assignment, "--run-dir", &run]).refusal()
    };
    let words: Vec<String> =
        ["train.rank=many", "train.rnak=4", "trian.rank=4", "rank", "train.rank=[", "train.targets=7"]
            .into_iter()
            .map(|assignment| format!("--set {assignment}\n{}\n", set(assignment)))
            .collect();
    insta::assert_snapshot!(words.join("\n"));
    let config = bench.write("train.yaml", "rank: 4\nepochs: some\n");
    let out = bench.text("out");
    let train =
        ["train", "--model", "tests/assets/model/stories260K.bin", "--data", "x", "--out", &out, "--config", &config];
    insta::assert_snapshot!(bench.run(&train).refusal());
}

#[test]
fn a_mended_file_runs() {
    let bench = Bench::new();
    let file = bench.write("mend.yaml", format!("{HEAD}{GENERATE}  train: {{needs: [rows]}}\n"));
    assert_eq!(bench.pipeline(&file, "run").code, 2);
    bench.write("mend.yaml", format!("{HEAD}{GENERATE}  train: {{needs: [generate], rank: 4, max_steps: 1}}\n"));
    let said = bench.pipeline(&file, "run");
    assert_eq!(said.code, 0, "{}", said.err);
}
