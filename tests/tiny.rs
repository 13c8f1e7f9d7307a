//! The binary from tree to report on a real model of 260,000 parameters: results, skips with reasons, kills, bad input.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn pipeline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.current_dir(ROOT).args(arguments).stdin(Stdio::null());
    command
}

fn run_tiny(folder: &Path) -> Output {
    let folder = folder.to_string_lossy();
    pipeline(&["run", "pipelines/tiny.yaml", "--run-dir", &folder]).output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Content of every result of a run: what must be the same whatever happened on the way.
fn results(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(current) = waiting.pop() {
        for entry in fs::read_dir(&current).expect("a folder").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
            if name.starts_with("logs") || name.starts_with(".work") || name == ".running" {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Names the files that differ, not their bytes.
fn assert_same(one: &Path, two: &Path) {
    let (one, two) = (results(one), results(two));
    let names: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let different: Vec<&&String> = names.iter().filter(|name| one.get(**name) != two.get(**name)).collect();
    assert!(different.is_empty(), "these files differ: {different:?}");
}

#[test]
fn a_tree_becomes_a_measured_model_and_a_second_run_does_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = run_tiny(folder.path());
    assert!(first.status.success(), "{}", stderr(&first));
    let made = results(folder.path());
    for name in [
        "rows/rows.parquet",
        "rows/messages.jsonl",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "adapter.gguf",
        "loss.jsonl",
        "model.Q8_0.gguf",
        "model.Q4_K_M.gguf",
        "eval/comparisons.json",
        "eval/results_tuned.json",
        "report.html",
        "Modelfile",
        "pipeline.lock",
    ] {
        assert!(made.contains_key(name), "{name} is missing among {:?}", made.keys());
    }
    let second = run_tiny(folder.path());
    assert!(second.status.success());
    assert_eq!(stderr(&second).matches("up to date").count(), 5, "{}", stderr(&second));
    assert!(made == results(folder.path()), "a second run changed a file");

    let changed = pipeline(&["run", "pipelines/tiny.yaml", "--set", "train.rank=2", "--run-dir"])
        .arg(folder.path())
        .output()
        .expect("the binary starts");
    let text = stderr(&changed);
    assert!(text.contains("`rank` changed from 4 to 2"), "{text}");
    assert!(text.contains("generate  up to date"), "{text}");
}

#[test]
fn two_runs_have_equal_bytes() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    assert!(run_tiny(one.path()).status.success());
    assert!(run_tiny(two.path()).status.success());
    assert_same(one.path(), two.path());
}

#[test]
fn a_run_killed_ten_times_ends_with_the_same_bytes() {
    let whole = tempfile::tempdir().expect("a folder");
    assert!(run_tiny(whole.path()).status.success());
    let killed = tempfile::tempdir().expect("a folder");
    let mut kills = 0;
    // Odd delays spread the kills over all stages, whatever the speed of the machine.
    for delay in [5, 170, 230, 290, 340, 60, 410, 120, 480, 25] {
        let path = killed.path().to_string_lossy().into_owned();
        let mut child = pipeline(&["run", "pipelines/tiny.yaml", "--run-dir", &path])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(Duration::from_millis(delay));
        if child.try_wait().expect("a child").is_none() {
            kills += 1;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    assert!(kills > 0, "no run was still alive when it was to be killed");
    let last = run_tiny(killed.path());
    assert!(last.status.success(), "{}", stderr(&last));
    assert_same(whole.path(), killed.path());
}

#[test]
fn bad_input_gets_a_place_a_remedy_and_an_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let head = "espalier: 1\nname: t\nstudent: tests/assets/model/stories260K.bin\n";
    let unknown = write("unknown.yaml", &format!("{head}stages:\n  train:\n    rnak: 4\n"));
    let cycle = write(
        "cycle.yaml",
        &format!(
            "{head}stages:\n  generate: {{taxonomy: taxonomy/examples/tiny, needs: [train]}}\n  train: {{needs: [generate]}}\n"
        ),
    );
    let lonely = write("lonely.yaml", &format!("{head}stages:\n  train: {{}}\n"));
    let broken = write("broken.gguf", "GGUF\u{3}\0\0\0");
    let cases: [(&[&str], &str); 6] = [
        (&["run", &unknown], "unknown.yaml:6:"),
        (&["run", &cycle], "generate -> train -> generate"),
        (&["run", &lonely], "add `needs: [generate]`"),
        (&["run", "no-such.yaml"], "pipeline init"),
        (&["model", "show", "no-such.gguf"], "there is no model at no-such.gguf"),
        (&["model", "show", &broken], "broken.gguf"),
    ];
    for (arguments, expected) in cases {
        let output = pipeline(arguments).output().expect("the binary starts");
        let text = stderr(&output);
        assert!(!output.status.success() && text.contains(expected), "{arguments:?}: {text}");
        assert!(text.starts_with("error: ") && !text.contains("panicked"), "{text}");
    }
}

#[test]
fn a_leaf_that_cannot_work_is_found_before_a_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let leaf = "espalier: 1\ncreated_by: t\ntask_description: Count.\nseed_examples:\n  \
        - {question: 'What is 10 + 1?', answer: eleven}\n  \
        - {question: 'What is 20 + 1?', answer: '21'}\n  \
        - {question: 'What is 30 + 1?', answer: '31'}\n\
        questions: {template: 'What is {{ m }} + 1?', slots: {n: {from: 1, to: 9}}}\n\
        verify: {regex: '^[0-9]+$'}\ntest: test.jsonl\n";
    fs::write(folder.path().join("qna.yaml"), leaf).expect("a file");
    let test = "{\"question\": \"What is 1 + 1?\", \"answer\": \"2\"}\n{\"question\": \"What is 2 + 1?\", \"answer\": \"x\"}\n";
    fs::write(folder.path().join("test.jsonl"), test).expect("a file");
    let path = folder.path().to_string_lossy();
    let output = pipeline(&["taxonomy", "validate", &path]).output().expect("starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    for place in ["qna.yaml:5:1: error", "qna.yaml:8:23: error", "test.jsonl:2:1: error"] {
        assert!(text.contains(place), "{place}: {text}");
    }
}

#[test]
fn a_teacher_that_gives_a_leaf_nothing_is_reported_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str, flags: &[&str]| {
        let folder = folder.path().join(name).to_string_lossy().into_owned();
        let arguments = [&["run", "pipelines/tiny.yaml", "--to", "generate", "--run-dir", &folder], flags].concat();
        pipeline(&arguments).output().expect("starts")
    };
    // The smallest model writes no questions: the leaf of the pond has its seeds and its document alone.
    let expected = "none of the teacher's 6 answers passed";
    let human = stderr(&run("human", &[]));
    assert!(human.contains("warning: ") && human.contains(expected), "{human}");
    let json = String::from_utf8_lossy(&run("json", &["--json"]).stdout).into_owned();
    let told = |text: &str| text.lines().any(|line| line.contains("\"event\":\"warning\"") && line.contains(expected));
    assert!(told(&json), "{json}");
    let log = fs::read_to_string(folder.path().join("human/logs/events.jsonl")).expect("a log");
    assert!(told(&log), "{log}");
}

#[test]
fn the_real_skills_trees_are_valid() {
    let output =
        pipeline(&["taxonomy", "validate", "tests/assets/taxonomy", "taxonomy/examples"]).output().expect("starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("leaves checked: no errors"), "{text}");
}

#[test]
fn a_starter_project_is_written_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_string_lossy().into_owned();
    assert!(pipeline(&["init", &path]).output().expect("starts").status.success());
    let tree = folder.path().join("taxonomy").to_string_lossy().into_owned();
    let valid = pipeline(&["taxonomy", "validate", &tree]).output().expect("starts");
    assert!(valid.status.success(), "{}", stderr(&valid));
    let again = pipeline(&["init", &path]).output().expect("starts");
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("is already there"));
}
