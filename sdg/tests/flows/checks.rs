//! What is said about flows that cannot run: by the reader, and by the check before a run.

use espalier_sdg::flow::read_flow;

use crate::script::{beside, instructlab};

const PROMPT: &str = "{% filter turn('user') %}On {{ topic }}.{% endfilter %}\n";

/// Everything said about a flow over rows with the columns `topic` and `kind`, with the engine `teacher`.
fn said(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.yaml");
    std::fs::write(&path, text).unwrap();
    for (name, text) in [
        ("p.jinja", PROMPT),
        ("unknown.jinja", "{% filter turn('user') %}{{ topik }} {{ other }}{% endfilter %}"),
        ("broken.jinja", "{% filter turn('user') %}\n{{ topic }\n{% endfilter %}"),
        ("good.yaml", "system: s\nintroduction: i\nprinciples: p\nexamples: ~\ngeneration: '{{ topic }}'\n"),
        ("short.yaml", "system: s\nstart_tags: ['']\nend_tags: ['']\n"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let columns = ["topic", "kind"].map(str::to_owned).into();
    let findings = match read_flow(&path) {
        Ok(flow) => flow.check(&columns, &["teacher"]),
        Err(findings) => findings,
    };
    assert!(!findings.is_empty(), "nothing is said about:\n{text}");
    let root = format!("{}/", folder.path().display());
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").replace(&root, "")
}

fn own(blocks: &str) -> String {
    said(&format!("espalier: 1\noutputs: [response]\nblocks:\n{blocks}"))
}

fn theirs(blocks: &str) -> String {
    said(&format!("version: '1.0'\nblocks:\n{blocks}"))
}

const LLM: &str = "  - {name: a, type: llm, prompt: p.jinja, output: response}\n";

#[test]
fn forms() {
    let all = [
        own("  - {name: a, type: lmm, prompt: p.jinja, output: response}\n"),
        own("  - {name: a, type: llm, promt: p.jinja, output: response}\n"),
        own("  - {name: a, type: llm, prompt: none.jinja, output: response}\n"),
        own("  - {name: a, type: llm, prompt: p.jinja, output: [response, question]}\n"),
        own("  - {name: a, type: llm, prompt: p.jinja, output: response, parse: {regex: '(a'}}\n"),
        own("  - {name: a, type: llm, prompt: p.jinja, output: response, parse: {json: {type: thing}}}\n"),
        own("  - {name: a, type: llm, prompt: p.jinja, output: response, parse: {tags: [[a, b], [c, d]]}}\n"),
        own("  - {name: a, type: llm, prompt: p.jinja, output: response, temperature: hot, samples: 0}\n"),
        own("  - {name: a, type: llm, prompts: {x: p.jinja}, output: response}\n"),
        own("  - {name: a, type: unique, columns: topic, compare: roughly}\n"),
        own(&format!("{LLM}{LLM}")),
        own("  - [a]\n"),
        said("espalier: 2\nblock: []\n"),
        said("espalier: 1\nblocks: []\n"),
        said("blocks: [\n"),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn graphs_and_columns() {
    let all = [
        own(
            "  - {name: a, type: llm, after: [b], prompt: p.jinja, output: response}\n  - {name: b, type: drop, columns: kind}\n",
        ),
        own(
            "  - {name: first, type: llm, prompt: p.jinja, output: response}\n  - {name: b, type: drop, after: frist, columns: kind}\n",
        ),
        own("  - {name: a, type: llm, prompt: unknown.jinja, output: response}\n"),
        own("  - {name: a, type: llm, prompt: broken.jinja, output: response}\n"),
        own("  - {name: a, type: llm, engine: reader, prompt: p.jinja, output: response}\n"),
        own("  - {name: a, type: filter, keep: 'topics == 1'}\n"),
        own("  - {name: a, type: map, columns: {response: 'topic +'}}\n"),
        own("  - {name: a, type: rename, columns: {kind: topic}}\n"),
        own("  - {name: a, type: flatten, columns: [topic, knd], name_column: n, value_column: response}\n"),
        own(&format!(
            "{LLM}  - {{name: b, type: drop, after: [], columns: kind}}\n  - {{name: c, type: filter, after: [a, b], keep: response == ''}}\n"
        )),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn instructlab_pipelines() {
    let llm = |rest: &str| format!("  - name: a\n    type: LLMBlock\n    config: {{output_cols: [x], {rest}}}\n");
    let block = |kind: &str, config: &str| format!("  - name: a\n    type: {kind}\n    config: {{{config}}}\n");
    let all = [
        theirs(&llm("config_path: good.yaml")),
        theirs(&llm("config_path: short.yaml")),
        theirs(&llm("config_path: good.yaml, gen_kwargs: {n: many}, parser_kwargs: {parser_name: custom}")),
        theirs(&block("LLMLogProbBlock", "output_cols: [x], config_path: good.yaml")),
        theirs(&block("FilterByValueBlok", "filter_column: topic")),
        theirs(&block("FilterByValueBlock", "filter_column: topic, filter_value: 1, operation: is")),
        theirs(&block(
            "FilterByValueBlock",
            "filter_column: score, filter_value: 1, operation: eq, convert_dtype: float",
        )),
        theirs(&block(
            "ConditionalLLMBlock",
            "output_cols: [x], selector_column_name: kind, config_paths: [good.yaml]",
        )),
        theirs(&block("CombineColumnsBlock", "columns: [topic, question], output_col: x")),
        said("version: '2.0'\nblocks: []\n"),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

/// Files with lines left out, twice, in another's place, cut off or with a character changed are read or refused.
#[test]
fn spoiled_flows_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.yaml");
    let columns = ["document", "question"].map(str::to_owned).into();
    let (mut read, mut refused) = (0, 0);
    for file in [instructlab("full/knowledge.yaml"), beside("instructlab_blocks/pipeline.yaml")] {
        let good = std::fs::read_to_string(&file).unwrap();
        // Paths of prompts are made whole, so that what is spoiled is the flow.
        let home = file.parent().unwrap().display().to_string();
        let good = good.replace("config_path: ", &format!("config_path: {home}/"));
        let lines: Vec<&str> = good.lines().collect();
        let mut state = 7_u64;
        for _ in 0..150 {
            let mut next = |limit: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % limit
            };
            let mut spoiled = lines.clone();
            let at = next(lines.len());
            match next(4) {
                0 => drop(spoiled.remove(at)),
                1 => spoiled.insert(at, lines[next(lines.len())]),
                2 => spoiled.truncate(at),
                _ => spoiled.swap(at, next(lines.len())),
            }
            let mut text: Vec<char> = spoiled.join("\n").chars().collect();
            if !text.is_empty() {
                let at = next(text.len());
                text[at] = ['-', ':', '{', '[', '&', '\'', '\n', 'x'][next(8)];
            }
            std::fs::write(&path, text.into_iter().collect::<String>()).unwrap();
            match read_flow(&path) {
                Ok(flow) => {
                    read += 1;
                    flow.check(&columns, &["teacher"]);
                }
                Err(findings) => {
                    refused += 1;
                    assert!(findings.iter().all(|finding| finding.line > 0 && !finding.message.is_empty()));
                }
            }
        }
    }
    assert!(read > 0 && refused > 20, "{read} read, {refused} refused");
}
