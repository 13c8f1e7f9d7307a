//! Quantization by measurement through the binary: importance from text, a table of files, types for a size, and a gate that a
//! planted bad file does not pass.

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
