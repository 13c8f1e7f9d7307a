//! Quantization by measurement through the binary: importance from text, a table of files, types for a size, and a gate that a
//! planted bad file does not pass, neither by divergence nor by its answers.

mod binary;

use binary::Bench;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MODEL: &str = "tests/assets/model/stories260K.bin";

/// A pipeline of two stages on the 260K model, with what the `quantize` stage says.
fn run(bench: &Bench, folder: &str, quantize: &str) -> (i32, String) {
    let file = bench.write(
        &format!("{folder}.yaml"),
        format!(
            "espalier: 1\nname: gate\nstudent: {ROOT}/{MODEL}\nstages:\n  generate: {{taxonomy: {ROOT}/taxonomy/examples/tiny, \
             seed: 7, shots: 0, max_tokens: 24}}\n  quantize: {{needs: [generate], {quantize}}}\n"
        ),
    );
    let said = bench.run(&["run", &file, "--run-dir", &bench.text(folder)]);
    (said.code, said.err)
}

fn kld(folder: &Path) -> f64 {
    let made: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("quantize.json")).expect("a list")).expect("JSON");
    made["files"][0]["kld"].as_f64().expect("a divergence")
}

#[test]
fn a_bad_file_is_refused_or_replaced_by_the_next_size() {
    let bench = Bench::new();
    // Four bits are too few for so small a model.
    let (code, words) = run(&bench, "refused", "types: [Q4_0], accept: {kld: 0.02}");
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("Q4_0 lies") && words.contains("otherwise: climb"), "{words}");
    assert!(!bench.path("refused/model.Q4_0.gguf").exists(), "a refused file is not left to be taken");

    let (code, words) = run(&bench, "climbed", "types: [Q4_0], accept: {kld: 0.02}, otherwise: climb");
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("is written in its place"), "{words}");
    assert!(!bench.path("climbed/model.Q4_0.gguf").exists());
    assert!(kld(&bench.path("climbed")) <= 0.02);
    let (code, words) = run(&bench, "climbed", "types: [Q4_0], accept: {kld: 0.02}, otherwise: climb");
    assert!(code == 0 && words.matches("up to date").count() == 2, "{words}");

    let (code, words) = run(&bench, "accepted", "types: [Q8_0], accept: {kld: 0.02}");
    assert_eq!(code, 0, "{words}");
    assert!(kld(&bench.path("accepted")) < 0.02);
}

/// A tree of one leaf with sixty held-out questions that have these answers.
fn tree(bench: &Bench, folder: &str, answers: &[String]) -> String {
    let leaf = fs::read_to_string(format!("{ROOT}/taxonomy/examples/tiny/skills/go_on_with_a_story/qna.yaml"));
    // Without a check an answer is right when it is the one that is written.
    let leaf: Vec<String> =
        leaf.expect("a leaf").lines().filter(|line| !line.starts_with("verify")).map(str::to_owned).collect();
    bench.write(&format!("{folder}/skills/stories/qna.yaml"), leaf.join("\n") + "\n");
    let mut test = String::new();
    let (names, animals, places) =
        (["Mia", "Joe", "Ann", "Pip", "Zoe"], ["cow", "pig", "hen", "fox"], ["hill", "sea", "sun"]);
    for (index, answer) in answers.iter().enumerate() {
        let (name, animal, place) = (names[index % 5], animals[index / 5 % 4], places[index / 20]);
        let question = format!("{name} the {animal} looked at the {place}.");
        test += &format!("{}\n", serde_json::json!({"question": question, "answer": answer}));
    }
    bench.write(&format!("{folder}/skills/stories/test.jsonl"), test);
    bench.text(folder)
}

/// A pipeline on a tree that quantizes as told and asks the files afterwards.
fn asking(bench: &Bench, name: &str, tree: &str, quantize: &str, evaluate: &str) -> String {
    bench.write(
        &format!("{name}.yaml"),
        format!(
            "espalier: 1\nname: gate\nstudent: {ROOT}/{MODEL}\nstages:\n  generate: {{taxonomy: {tree}, seed: 7, shots: 0, \
             max_tokens: 24}}\n  quantize: {{needs: [generate], imatrix: none, {quantize}}}\n  evaluate: {{needs: [generate, quantize], \
             compare: [base, quantized], shots: 0, max_tokens: 4{evaluate}}}\n"
        ),
    )
}

/// What the model itself says to the questions of [`tree`].
fn own_answers(bench: &Bench) -> Vec<String> {
    let tree = tree(bench, "unanswered", &vec!["nothing".to_owned(); 60]);
    let file = asking(bench, "unanswered", &tree, "types: [Q8_0]", "");
    let said = bench.run(&["run", &file, "--run-dir", &bench.text("own")]);
    assert_eq!(said.code, 0, "{}", said.err);
    let samples = fs::read_to_string(bench.path("own/eval/samples_skills_stories_base.jsonl")).expect("samples");
    let answer = |line: &str| -> String {
        let sample: serde_json::Value = serde_json::from_str(line).expect("JSON");
        sample["resps"][0][0].as_str().expect("a response").to_owned()
    };
    samples.lines().map(answer).collect()
}

fn journals(folder: &Path) -> Vec<String> {
    let found = fs::read_dir(folder.join(".work/evaluate")).expect("journals");
    let mut names: Vec<String> =
        found.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_answers_worse_is_refused_or_replaced_by_the_next_size() {
    let bench = Bench::new();
    let answers = own_answers(&bench);
    let taught = tree(&bench, "answered", &answers);
    let accept = "types: [Q4_0], accept: {task: non-inferior}";
    let refused =
        bench.run(&["run", &asking(&bench, "refused", &taught, accept, ""), "--run-dir", &bench.text("refused")]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(
        refused.err.contains("on 60 held-out questions Q4_0 is worse than the unquantized model"),
        "{}",
        refused.err
    );
    assert!(!bench.path("refused/model.Q4_0.gguf").exists(), "a refused file is not left to be taken");

    let climbs = asking(&bench, "climbs", &taught, &format!("{accept}, otherwise: climb"), "");
    let plan = bench.run(&["plan", &climbs, "--run-dir", &bench.text("climbed")]);
    assert!(
        plan.out
            .contains("gate: 60 held-out questions (skills/stories 60) to the model and to each file, which may lose "),
        "{}",
        plan.out
    );
    let climbed = bench.run(&["run", &climbs, "--to", "quantize", "--run-dir", &bench.text("climbed")]);
    assert_eq!(climbed.code, 0, "{}", climbed.err);
    assert!(climbed.err.contains("is written in its place"), "{}", climbed.err);
    let made = fs::read(bench.path("climbed/quantize.json")).expect("a list");
    let made: serde_json::Value = serde_json::from_slice(&made).expect("JSON");
    let found = &made["files"][0]["answers"];
    assert_eq!((&found["questions"], &found["verdict"]), (&60.into(), &"non_inferior".into()), "{made}");
    assert_eq!(found["leaves"][0]["leaf"], "skills/stories");
    assert!(found["loses_at_most"].as_f64() < found["margin"].as_f64(), "{made}");

    // What the gate asked, evaluation does not ask again; and a gate remembers.
    let asked = journals(&bench.path("climbed"));
    let whole = bench.run(&["run", &climbs, "--run-dir", &bench.text("climbed")]);
    assert_eq!(whole.code, 0, "{}", whole.err);
    assert!(whole.err.contains("what a stage above has asked is not asked again"), "{}", whole.err);
    assert_eq!(journals(&bench.path("climbed")), asked);
    // Asked otherwise it is another gate.
    let wider = asking(&bench, "climbs", &taught, &format!("{accept}, otherwise: climb"), ", margin: 0.2");
    let changed = bench.run(&["why", "quantize", &wider, "--run-dir", &bench.text("climbed")]);
    assert!(changed.out.contains("questions changed from"), "{}{}", changed.out, changed.err);
}

#[test]
fn questions_that_cannot_tell_are_refused_before_a_file_is_written() {
    let bench = Bench::new();
    let tree = tree(&bench, "unanswered", &vec!["nothing".to_owned(); 60]);
    let said = |quantize: &str, evaluate: &str| {
        let file = asking(&bench, "gate", &tree, quantize, evaluate);
        let said = bench.run(&["run", &file, "--run-dir", &bench.text("run")]);
        (said.code, said.err)
    };
    let (code, words) = said("types: [Q8_0], accept: {task: non-inferior}", ", limit: 4");
    assert!(code == 2 && words.contains("gate.yaml:6:"), "{words}");
    assert!(
        words.contains("4 held-out questions are too few") && words.contains("or more (the tests of the tree"),
        "{words}"
    );
    let (code, words) = said("types: [Q8_0], accept: {task: better}", "");
    assert!(code == 2 && words.contains("gate.yaml:6:") && words.contains("unknown value `better`"), "{words}");
    let (code, words) = said("types: [Q8_0], accept: {}", "");
    assert!(code == 2 && words.contains("gate.yaml:6:") && words.contains("names nothing that a file"), "{words}");
    // Who knows nothing has nothing to lose.
    let (code, words) = said("types: [Q8_0], accept: {task: non-inferior}", "");
    assert!(code == 3 && words.contains("has 0 of 60 held-out questions right"), "{words}");
    assert!(!bench.path("run/model.Q8_0.gguf").exists());
}

#[test]
fn importance_table_and_types_for_a_size() {
    let bench = Bench::new();
    let (imatrix, out) = (bench.text("imatrix.gguf"), bench.text("small.gguf"));
    let (model, text) = (format!("{ROOT}/{MODEL}"), format!("{ROOT}/tests/assets/text/wiki.test.raw"));
    let said = bench.run(&["imatrix", &model, "--data", &text, "--chunks", "4", "--out", &imatrix]);
    assert!(
        said.code == 0 && said.out.contains("35 tensors, 2048 tokens of wiki.test.raw"),
        "{}{}",
        said.out,
        said.err
    );
    let said = bench.run(&["imatrix", "--show", &imatrix]);
    assert!(said.out.contains("blk.4.ffn_down.weight") && said.out.contains("evenness"), "{}", said.out);

    let head = fs::read_to_string(&text).expect("a text").chars().take(12_000).collect::<String>();
    let slice = bench.write("slice.txt", head);
    let quantize = |size: &str| {
        let arguments = ["quantize", &model, "--imatrix", &imatrix, "--target", size, "--data", &slice, "--out", &out];
        bench.run(&arguments)
    };
    let said = quantize("3bpw");
    assert!(said.code == 2 && said.err.contains("smallest possible"), "{}", said.err);
    let said = quantize("speed");
    assert!(said.code == 0 && said.err.contains("ms with the fastest types"), "{}{}", said.out, said.err);
    let types = fs::read(format!("{out}.types.json")).expect("types");
    let types: serde_json::Value = serde_json::from_slice(&types).expect("JSON");
    assert!(types["time"]["seconds"].as_f64() >= types["time"]["fastest"].as_f64(), "{types}");
    let said = quantize("7.5bpw");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(Path::new(&format!("{out}.types.json")).exists());

    let fixed = bench.text("fixed.gguf");
    assert_eq!(bench.run(&["quantize", &model, "--type", "Q4_0", "--out", &fixed]).code, 0);
    let plot = bench.text("front.svg");
    let said = bench.run(&["compare", &out, &fixed, "--reference", &model, "--text", &slice, "--plot", &plot]);
    assert!(
        said.code == 0 && said.out.contains("mean divergence") && said.out.contains('±'),
        "{}{}",
        said.out,
        said.err
    );
    assert!(fs::read_to_string(plot).expect("a plot").contains("<circle"));

    let said = bench.run(&["quantize", &model, "--type", "Q4_K_M", "--dry-run"]);
    assert!(said.code == 0 && said.out.contains("in place of Q4_K") && said.out.contains("would be"), "{}", said.out);
}
