//! Models that cannot be read.

use crate::binary::Bench;
use std::fs;

const TINY: &str = "tests/assets/model/stories260K.bin";

#[test]
fn a_broken_model_is_named_and_a_whole_one_then_runs() {
    let bench = Bench::new();
    let whole = bench.text("whole.gguf");
    let made = bench.run(&["quantize", TINY, "--type", "Q8_0", "--out", &whole]);
    assert_eq!(made.code, 0, "{}", made.err);
    let bytes = fs::read(bench.path("whole.gguf")).expect("a model");
    let mut other = bytes.clone();
    let at = bytes.windows(5).position(|window| window == b"llama").expect("an architecture");
    other[at..at + 5].copy_from_slice(b"mamba");
    let cases = [
        ("cut in its tensors", bytes[..bytes.len() / 2].to_vec()),
        ("cut in its head", bytes[..2000].to_vec()),
        ("empty", Vec::new()),
        ("another format", b"PK\x03\x04 is a wheel".to_vec()),
        ("an unknown architecture", other),
    ];
    let mut words = String::new();
    for (name, content) in cases {
        let model = bench.write("model.gguf", content);
        let shown = bench.run(&["model", "show", &model]);
        let set = format!("student={model}");
        let run = bench.text("run");
        let ran = bench.run(&["run", "pipelines/tiny.yaml", "--set", &set, "--run-dir", &run]);
        words += &format!("{name}\nmodel show: {}\nrun: {}\n\n", shown.refusal(), ran.refusal());
        assert_eq!((shown.code, ran.code), (2, 2), "{name}");
        assert!(bench.results("run").is_empty(), "{name}: something was made");
    }
    insta::assert_snapshot!(words);
    let model = bench.write("model.gguf", bytes);
    let set = format!("student={model}");
    let run = bench.text("run");
    let said = bench.run(&["run", "pipelines/tiny.yaml", "--set", &set, "--run-dir", &run]);
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn a_model_that_is_not_there_and_a_reference_that_is_none() {
    let bench = Bench::new();
    let words: Vec<String> = ["no-such.gguf", "pypi:", "hf:org/name/part", "oci:org/name", "tests/assets/taxonomy"]
        .into_iter()
        .map(|reference| {
            let said = bench.run(&["model", "show", reference]);
            assert_eq!(said.code, 2, "{reference}: {}", said.err);
            format!("{reference}\n{}\n", said.refusal())
        })
        .collect();
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn a_model_of_a_pipeline_file_is_named_with_its_place() {
    let bench = Bench::new();
    let teacher = "espalier: 1\nname: t\nstudent: tests/assets/model/stories260K.bin\nteacher: no-such.gguf\n";
    let file = bench.write("t.yaml", format!("{teacher}stages:\n  generate: {{taxonomy: taxonomy/examples/tiny}}\n"));
    let (planned, ran) = (bench.run(&["plan", &file]), bench.pipeline(&file, "run"));
    assert_eq!(planned.refusal(), ran.refusal());
    insta::assert_snapshot!(ran.refusal());
}
