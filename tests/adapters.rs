//! `pipeline adapter` through the binary: its two forms, merged models, what it says, and what it refuses.

#[path = "binary/mod.rs"]
mod binary;

use binary::{Bench, Said};
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

const TINY: &str = "tests/assets/model/stories260K.bin";
const ADAPTER: &str = "tests/golden/adapter-260k/adapter";
const GOLDEN_GGUF: &str = "tests/golden/adapter-260k/adapter.gguf";

fn done(said: Said) -> Said {
    assert_eq!(said.code, 0, "{}", said.err);
    said
}

/// The last line of a run with `--json`.
fn result(said: &Said) -> serde_json::Value {
    let line = said.out.lines().last().expect("a line");
    serde_json::from_str::<serde_json::Value>(line).expect("JSON")["result"].clone()
}

/// A PEFT folder of one module in layer 0, its values small and fixed.
fn peft(bench: &Bench, name: &str, settings: &str, tensors: &[(&str, &[usize])]) -> String {
    let (mut head, mut data) = (String::from("{"), Vec::new());
    for (tensor, shape) in tensors {
        let start = data.len();
        for at in 0..shape.iter().product::<usize>() {
            data.extend((0.01 * (at % 7 + 1) as f32).to_le_bytes());
        }
        let comma = if head.len() > 1 { "," } else { "" };
        let place = format!("\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{}]", data.len());
        write!(head, "{comma}\"base_model.model.model.layers.0.self_attn.q_proj.{tensor}\":{{{place}}}").expect("text");
    }
    head.push('}');
    let file = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &data].concat();
    bench.write(&format!("{name}/adapter_model.safetensors"), file);
    let settings = format!("{{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 2{settings}}}");
    bench.write(&format!("{name}/adapter_config.json"), settings);
    bench.text(name)
}

fn names(bench: &Bench, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(bench.path(folder)).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_adapter_goes_from_one_form_to_the_other_and_back() {
    let bench = Bench::new();
    let [file, folder, again] = ["a.gguf", "folder", "again.gguf"].map(|name| bench.text(name));
    let export = |from: &str, to: &str| done(bench.run(&["adapter", "export", from, "--model", TINY, "--out", to]));
    let mut words = export(ADAPTER, &file).out;
    words += &export(&file, &folder).out;
    words += &export(&folder, &again).out;
    insta::assert_snapshot!("export", words);
    assert_eq!(fs::read(&file).expect("a file"), fs::read(&again).expect("a file"));
    assert_eq!(names(&bench, "folder"), ["adapter_config.json", "adapter_model.safetensors"]);
    let shown = |adapter: &str| result(&done(bench.run(&["adapter", "show", adapter, "--json"])))["modules"].clone();
    assert_eq!(shown(ADAPTER), shown(&folder));
}

#[test]
fn a_merged_model_scores_as_the_base_with_its_adapter() {
    let bench = Bench::new();
    let text =
        bench.write("text.txt", "Once upon a time, there was a little girl named Lily. She loved to play. ".repeat(40));
    let score = |arguments: &[&str]| {
        let said =
            done(bench.run(&[&["perplexity", "--text", &text, "--json", "--precision", "f32"], arguments].concat()));
        result(&said)["mean_nll"].as_f64().expect("a number")
    };
    let expected = score(&["--model", TINY, "--adapter", ADAPTER]);
    let mut words = String::new();
    for (name, dtype, tolerance) in [
        ("folder", Some("f32"), 1e-5),
        ("half", None, 2e-2),
        ("merged.gguf", None, 1e-5),
        ("half.gguf", Some("bf16"), 2e-2),
    ] {
        let out = bench.text(name);
        let dtype: Vec<&str> = dtype.into_iter().flat_map(|dtype| ["--dtype", dtype]).collect();
        let merge = [&["adapter", "merge", ADAPTER, "--model", TINY, "--out", &out], &dtype[..]].concat();
        let said = done(bench.run(&merge));
        words += &said.out;
        let found = score(&["--model", &out]);
        assert!((found - expected).abs() < tolerance, "{name}: {found} {expected}");
    }
    assert!((score(&["--model", TINY]) - expected).abs() > 1e-3, "the adapter changes nothing");
    insta::assert_snapshot!("merge", words);
    insta::assert_snapshot!("merged_files", names(&bench, "folder").join("\n"));
    let special = "<s>Lily</s> played.";
    let ids = |model: &str| done(bench.run(&["tokenize", "--model", model, "--special", special])).out;
    assert_eq!(ids(&bench.text("folder")), ids(TINY));
    // What was merged is a base like any other.
    let twice = bench.text("twice");
    let folder = bench.text("folder");
    done(bench.run(&["adapter", "merge", ADAPTER, "--model", &folder, "--out", &twice]));
    assert_eq!(
        fs::read(bench.path("twice/tokenizer.json")).expect("a file"),
        fs::read(bench.path("folder/tokenizer.json")).expect("a file")
    );
}

#[test]
fn an_adapter_is_shown() {
    let bench = Bench::new();
    let mut words = done(bench.run(&["adapter", "show", GOLDEN_GGUF])).out;
    words += &done(bench.run(&["adapter", "show", ADAPTER, "--model", TINY])).out;
    let shapes: [(&str, &[usize]); 3] =
        [("lora_A.weight", &[1, 64]), ("lora_B.weight", &[64, 1]), ("lora_magnitude_vector", &[64])];
    let dora = peft(&bench, "dora", ", \"use_dora\": true, \"base_model_name_or_path\": \"stories\"", &shapes);
    words += &done(bench.run(&["adapter", "show", &dora])).out;
    let other = peft(&bench, "other", "", &[("lora_A.weight", &[1, 32]), ("lora_B.weight", &[64, 1])]);
    let refused = bench.run(&["adapter", "show", &other, "--model", TINY]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    words += &refused.out;
    insta::assert_snapshot!("show", words);
    let json = result(&bench.run(&["adapter", "show", &other, "--model", TINY, "--json"]));
    assert_eq!((&json["fit"]["fits"], &json["kind"], &json["rank"]), (&false.into(), &"LoRA".into(), &1.into()));
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let mut words = String::new();
    let mut refuse = |name: &str, arguments: &[&str]| {
        let said = bench.run(&[&["adapter"], arguments].concat());
        assert!(matches!(said.code, 1 | 2), "{name}: {}", said.err);
        writeln!(words, "{name}\n{}\n", said.refusal()).expect("text");
    };
    let [out, file] = ["out", "out.gguf"].map(|name| bench.text(name));
    let other = peft(&bench, "other", "", &[("lora_A.weight", &[1, 32]), ("lora_B.weight", &[64, 1])]);
    for (to, command) in [(&out, "merge"), (&file, "merge"), (&out, "export"), (&file, "export")] {
        refuse("an adapter of another base", &[command, &other, "--model", TINY, "--out", to]);
    }
    let shapes: [(&str, &[usize]); 3] =
        [("lora_A.weight", &[1, 64]), ("lora_B.weight", &[64, 1]), ("lora_magnitude_vector", &[64])];
    let dora = peft(&bench, "dora", ", \"use_dora\": true", &shapes);
    refuse("DoRA as GGUF", &["export", &dora, "--model", TINY, "--out", &file]);
    let missing = bench.text("missing");
    refuse("no adapter", &["merge", &missing, "--model", TINY, "--out", &out]);
    refuse("no adapter to show", &["show", &missing]);
    bench.write("letters/letter.txt", "Dear Lily");
    let letters = bench.text("letters");
    refuse("a folder of other things", &["merge", ADAPTER, "--model", TINY, "--out", &letters]);
    refuse("a folder of other things, forced", &["merge", ADAPTER, "--model", TINY, "--out", &letters, "--force"]);
    let below = bench.text("letters/letter.txt/out");
    refuse("a folder below a file", &["merge", ADAPTER, "--model", TINY, "--out", &below]);
    refuse("an unknown type", &["merge", ADAPTER, "--model", TINY, "--out", &out, "--dtype", "f8"]);
    assert!(!bench.path("out").exists() && !bench.path("out.gguf").exists());

    done(bench.run(&["adapter", "merge", &dora, "--model", TINY, "--out", &out]));
    refuse("a folder that is there", &["merge", ADAPTER, "--model", TINY, "--out", &out]);
    done(bench.run(&["adapter", "merge", ADAPTER, "--model", TINY, "--out", &out, "--force"]));
    fs::remove_file(bench.path("out/tokenizer.json")).expect("a file");
    let merged = bench.text("merged");
    refuse("a base without a tokenizer", &["merge", ADAPTER, "--model", &out, "--out", &merged]);
    let shown = done(bench.run(&["adapter", "export", &dora, "--model", TINY, "--out", &merged]));
    assert!(shown.out.contains("wrote"));
    assert_eq!(names(&bench, "."), ["dora", "letters", "merged", "other", "out"]);
    insta::assert_snapshot!("refusals", words);
}

#[test]
fn a_full_disk_leaves_nothing() {
    let bench = Bench::new();
    let mut words = String::new();
    for (out, blocks) in [("folder", 100), ("small.gguf", 100), ("without-settings", 0)] {
        let mut command = Command::new("sh");
        // The signal that a passed limit sends is ignored, so that the write fails instead.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["adapter", "merge", ADAPTER, "--model", TINY, "--out", &bench.text(out)]);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        let said = bench.said(&command.output().expect("a shell"));
        assert_eq!(said.code, 1, "{out}: {}", said.err);
        writeln!(words, "{}\n", said.refusal()).expect("text");
    }
    assert!(names(&bench, ".").is_empty(), "{:?}", names(&bench, "."));
    insta::assert_snapshot!("full_disk", words);
}

#[test]
fn models_go_from_one_form_to_the_other_and_back() {
    let bench = Bench::new();
    let [folder, file] = ["folder", "again.gguf"].map(|name| bench.text(name));
    let words = done(bench.run(&["model", "convert", TINY, "--out", &folder, "--dtype", "f32"])).out
        + &done(bench.run(&["model", "convert", &folder, "--out", &file, "--dtype", "f32"])).out;
    insta::assert_snapshot!(words.replace(&folder, "folder").replace(&file, "again.gguf"));
    let text = ["perplexity", "--text", "tests/assets/text/wiki.test.raw", "--chunks", "1", "--json", "--model"];
    let [before, after] = [TINY, file.as_str()].map(|model| {
        let arguments: Vec<&str> = text.iter().copied().chain([model]).collect();
        result(&done(bench.run(&arguments)))["mean_nll"].clone()
    });
    assert_eq!(before, after);
    let refused = bench.run(&["model", "convert", TINY, "--out", &folder]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--force") || refused.err.contains("folder"), "{}", refused.err);
}
