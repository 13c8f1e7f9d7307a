//! What is killed, or whose disk is full, and goes on: the same bytes as unbroken.

mod binary;

use binary::{Bench, Said};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Short conversations, one of them of another kind: the guard acts on it, and this too must survive every kill.
fn rows() -> String {
    let names = ["Lily", "Tom", "Ben", "Mia", "Sam", "Anna"];
    let things = ["ball", "cat", "tree", "boat", "hat"];
    let row = |question: &str, answer: &str| {
        let turns = serde_json::json!({"messages": [
            {"role": "user", "content": question}, {"role": "assistant", "content": answer}]});
        format!("{turns}\n")
    };
    let pairs = names.iter().flat_map(|name| things.map(|thing| (name, thing)));
    let mut text: String = pairs
        .map(|(name, thing)| {
            row(&format!("What does {name} see?"), &format!("{name} sees a red {thing} near the big house."))
        })
        .collect();
    text += &row("What?", "Zq#7 Xw%9 Vk&3 Jz@1 Qx!5 Wv?8 Kj*2 Zx+4 Qw=6 Vz~0 Xk^7 Jq$9");
    text
}

/// A training that looks at held-out rows and at general text with every checkpoint.
fn arguments<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    let settings = [
        "rank=4",
        "learning_rate=0.005",
        "max_steps=70",
        "tokens_per_step=96",
        "max_sequence=96",
        "checkpoint_every=4",
        "seed=5",
        "spike_threshold=10",
        "validation=0.1",
        "metric_for_best_model=accuracy",
        "forgetting=tests/assets/taxonomy/knowledge/science/animals/birds/black_capped_chickadee/attribution.txt",
        "forgetting_tokens=50",
    ];
    let mut arguments =
        vec!["train", "--model", "tests/assets/model/stories260K.bin", "--data", data, "--out", out, "--threads", "1"];
    arguments.extend(settings.into_iter().flat_map(|setting| ["--set", setting]));
    arguments
}

/// One training from its first step to its last, or from where an earlier one of the folder was stopped.
fn finish(bench: &Bench, data: &str, out: &str) -> (Said, BTreeMap<String, Vec<u8>>) {
    let said = bench.run(&arguments(data, &bench.text(out)));
    assert_eq!(said.code, 0, "{}", said.err);
    (said, bench.results(out))
}

fn assert_equal(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, content) in expected {
        if found.get(name) == Some(content) {
            continue;
        }
        let text = |content: Option<&Vec<u8>>| String::from_utf8_lossy(content.map_or(&[], Vec::as_slice)).into_owned();
        let (found, expected) = (text(found.get(name)), text(Some(content)));
        let line = found.lines().zip(expected.lines()).position(|(one, other)| one != other);
        let place = line.unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
        let shown = |text: &str| text.lines().nth(place).unwrap_or("nothing").chars().take(300).collect::<String>();
        panic!("{what}: {name} differs in line {}: {} instead of {}", place + 1, shown(&found), shown(&expected));
    }
}

#[test]
fn killed_at_ten_moments_it_ends_with_the_same_bytes() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows());
    let started = Instant::now();
    let (said, expected) = finish(&bench, &data, "unbroken");
    let whole = started.elapsed();
    assert!(said.err.contains("back to step"), "the guard did not act: {}", said.err);

    kill_ten_times(&bench, &arguments(&data, &bench.text("killed")), whole, &expected);
    assert_equal(&finish(&bench, &data, "killed").1, &expected, "killed ten times");
}

/// A generation over all kinds of leaves, with answers long enough for a kill to come between them.
#[test]
fn a_generation_killed_at_ten_moments_ends_with_the_same_bytes() {
    let bench = Bench::new();
    bench.tree("tree");
    for (leaf, few, many) in [
        ("skills/go_on_with_a_story", "samples: 24", "samples: 140"),
        ("knowledge/the_pond", "samples: 6", "samples: 200"),
    ] {
        let file = format!("tree/{leaf}/qna.yaml");
        let text = std::fs::read_to_string(bench.path(&file)).expect("a leaf");
        assert!(text.contains(few), "{text}");
        bench.write(&file, text.replace(few, many));
    }
    let (tree, model) = (bench.text("tree"), "tests/assets/model/stories260K.bin");
    let run = |name: &str| {
        let out = bench.text(name);
        let said = bench.run(&generation(&tree, model, &out));
        assert_eq!(said.code, 0, "{}", said.err);
        bench.results(name)
    };
    let started = Instant::now();
    let expected = run("unbroken");
    let whole = started.elapsed();
    assert!(expected.contains_key("rows.parquet"), "{:?}", expected.keys());
    assert_equal(&run("again"), &expected, "one seed gives equal bytes");
    kill_ten_times(&bench, &generation(&tree, model, &bench.text("killed")), whole, &expected);
    assert_equal(&run("killed"), &expected, "killed ten times");
}

fn generation<'a>(tree: &'a str, model: &'a str, out: &'a str) -> [&'a str; 11] {
    ["generate", "--taxonomy", tree, "--model", model, "--out", out, "--seed", "3", "--threads", "1"]
}

/// Runs a command that writes into the folder `killed` until it was killed ten times; each moment is drawn from the first nine
/// tenths of an unbroken run. Where it came to its end first, its results must be the expected ones already.
fn kill_ten_times(bench: &Bench, arguments: &[&str], whole: Duration, expected: &BTreeMap<String, Vec<u8>>) {
    let mut random = 20_240_607_u64;
    let mut kills = 0;
    while kills < 10 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = whole.mul_f64((random >> 40) as f64 / (1_u64 << 24) as f64 * 0.9);
        let mut child =
            bench.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(delay);
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{status}");
            assert_equal(&bench.results("killed"), expected, "before the next kill");
            std::fs::remove_dir_all(bench.path("killed")).expect("a folder");
        } else {
            child.kill().expect("a child");
            child.wait().expect("a child");
            kills += 1;
        }
    }
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_space_lets_it_go_on() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows());
    let (_, expected) = finish(&bench, &data, "unbroken");

    let out = bench.text("full");
    let checkpoints = bench.path("full/.work/checkpoints");
    let mut child = bench.command(&arguments(&data, &out)).stderr(Stdio::null()).spawn().expect("the binary starts");
    let begun = Instant::now();
    while names(&checkpoints).len() < 2 && begun.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().expect("a child");
    let before: Vec<String> = names(&checkpoints).into_iter().filter(|name| !name.contains(".part")).collect();
    assert!(!before.is_empty() && !bench.path("full/adapter").exists(), "it was to be killed in the middle");

    // A limit on the size of files gives the errors of a full disk at the same calls. Lines of the loss still fit (of 512
    // bytes there are 64), a checkpoint does not.
    let mut command = Command::new("sh");
    command.arg("-c").arg("trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_pipeline"));
    command.args(arguments(&data, &out)).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let said = bench.said(&command.output().expect("a shell"));
    assert_eq!(said.code, 1, "{}", said.err);
    for words in ["state.safetensors: cannot write it", "free some space", "the same command goes on"] {
        assert!(said.err.contains(words), "{words} is not said: {}", said.err);
    }
    assert_eq!(names(&checkpoints), before, "the checkpoints before it are there, and nothing else");
    assert_equal(&finish(&bench, &data, "full").1, &expected, "after a full disk");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
