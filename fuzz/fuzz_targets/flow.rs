//! A flow of any text, in our form or InstructLab's, with prompts that are good.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    scratch::file("flow/p.jinja", b"{% filter turn('user') %}On {{ topic }}.{% endfilter %}\n");
    scratch::file(
        "flow/p.yaml",
        b"system: s\nintroduction: i\nprinciples: p\nexamples: e\ngeneration: g\nstart_tags: ['']\nend_tags: ['']\n",
    );
    let path = scratch::file("flow/flow.yaml", data);
    if let Ok(flow) = espalier_sdg::flow::read_flow(&path) {
        flow.check(&["topic".to_owned()].into(), &["teacher"]);
    }
});
