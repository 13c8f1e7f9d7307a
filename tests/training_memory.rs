//! The memory that a training plans for before its first step, beside what its process takes.

mod binary;

use binary::Bench;
use serde_json::Value;

/// Conversations that fill a micro-batch of 2,048 rows.
fn rows() -> String {
    let words = ["tree", "branch", "wall", "fruit", "winter", "wire", "summer"];
    let row = |row: usize| {
        let answer: Vec<&str> = (0..40).map(|word| words[(row * 3 + word * word) % words.len()]).collect();
        let turns = serde_json::json!({"messages": [
            {"role": "user", "content": format!("Write list {row}.")},
            {"role": "assistant", "content": answer.join(" ")}]});
        format!("{turns}\n")
    };
    (0..60).map(row).collect()
}

/// Plan and peak in bytes, and how many blocks are computed twice.
fn train(bench: &Bench, data: &str, out: &str, more: &[&str]) -> (u64, u64, u64) {
    let out = bench.text(out);
    let mut arguments =
        vec!["train", "--model", "tests/assets/model/stories260K.bin", "--data", data, "--out", &out, "--json"];
    for setting in ["rank=4", "max_steps=3", "tokens_per_step=4096", "max_sequence=256"] {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(["--threads", "2"]);
    arguments.extend(more);
    let said = bench.run(&arguments);
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<Value> = said.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let figures = |event: &str| {
        let mut all = lines.iter().map(|line| &line["figures"]);
        all.find(|figures| figures["event"] == event).unwrap_or_else(|| panic!("no {event} in {}", said.out))
    };
    let plan = &figures("plan")["memory"];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {value}"));
    (number(&plan["total"]), number(&figures("done")["memory"]["peak"]), number(&plan["recomputed_layers"]))
}

#[test]
#[cfg(target_os = "linux")]
fn the_peak_is_never_above_the_plan_and_the_plan_at_most_a_quarter_above_the_peak() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows());
    let (free, peak, again) = train(&bench, &data, "free", &[]);
    assert!(peak <= free && free * 4 <= peak * 5 && again == 0, "{free} planned, {peak} at most");
    // Looks at held-out rows and at general text are part of the plan.
    let general =
        bench.write("general.txt", "Once upon a time there was a little girl who liked to play. ".repeat(200));
    let forgetting = format!("forgetting={general}");
    let looks = ["--set", "validation=0.1", "--set", &forgetting, "--set", "forgetting_tokens=2048"];
    let (planned, peak, _) = train(&bench, &data, "looks", &looks);
    assert!(peak <= planned && planned * 4 <= peak * 5, "{planned} planned, {peak} at most");
    // Less memory: smaller batches, and blocks that are computed twice.
    let limit = format!("{}kB", free * 3 / 5 / 1000);
    let (planned, peak, again) = train(&bench, &data, "less", &["--memory", &limit]);
    assert!(planned * 5 <= free * 3 && peak <= planned && again > 0, "{planned} planned for {limit}, {peak} at most");
}

#[test]
#[cfg(target_os = "linux")]
fn what_dora_and_a_teacher_take_is_in_the_plan() {
    let bench = Bench::new();
    let data = bench.write("rows.jsonl", rows());
    let (plain, _, _) = train(&bench, &data, "plain", &[]);
    let (dora, peak, _) = train(&bench, &data, "dora", &["--set", "dora=true"]);
    assert!(dora > plain && peak <= dora && dora * 4 <= peak * 5, "{dora} planned, {peak} at most");
    let table = bench.text("teacher.parquet");
    let model = "tests/assets/model/stories260K.bin";
    let asked = ["teach", "--model", model, "--student", model, "--data", &data, "--out", &table, "--top-k", "64"];
    let said = bench.run(&asked);
    assert_eq!(said.code, 0, "{}", said.err);
    for more in [&[][..], &["--set", "validation=0.2"]] {
        let name = format!("taught{}", more.len());
        let (taught, peak, _) = train(&bench, &data, &name, &[&["--teacher-logprobs", &table], more].concat());
        assert!(taught > plain && peak <= taught && taught * 4 <= peak * 5, "{taught} planned, {peak} at most");
    }
}
