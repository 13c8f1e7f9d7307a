//! What is said about flows that cannot run: by the reader, and by the check before a run.

use espalier_sdg::flow::read_flow;

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
        own("  - {name: a, type: llm, engine: judge, prompt: p.jinja, output: response}\n"),
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
