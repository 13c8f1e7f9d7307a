//! Our runtime against instructlab-sdg's own: golden.json is made by scripts/golden-flows.py with instructlab-sdg 0.8.3.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::script::{Run, beside, flow, golden_answer, instructlab, samples};

#[test]
fn instructlab_pipelines_give_the_rows_that_their_own_runtime_gives() {
    let golden = std::fs::read_to_string(beside("golden.json")).unwrap();
    let golden: BTreeMap<String, BTreeMap<String, Vec<Value>>> = serde_json::from_str(&golden).unwrap();
    assert_eq!(golden.len(), 11);
    for (name, rows) in &golden {
        let path = match name.as_str() {
            "instructlab_blocks" => beside("instructlab_blocks/pipeline.yaml"),
            name => instructlab(&format!("{name}.yaml")),
        };
        let flow = flow(&path);
        let Value::Object(first) = &rows["in"][0] else { panic!("a row is an object") };
        let columns: BTreeSet<String> = first.keys().cloned().collect();
        assert_eq!(flow.check(&columns, &["teacher"]), [], "{name}");
        let mut run = Run::default();
        let made = run.flow(&flow, samples(&rows["in"]), &golden_answer).unwrap();
        let result = &made.results[0];
        let found: Vec<Value> = result.kept.iter().map(|sample| Value::Object(sample.columns.clone())).collect();
        assert_eq!(found.len(), rows["out"].len(), "{name}: {:#?}", result.blocks);
        for (found, expected) in found.iter().zip(&rows["out"]) {
            assert_eq!(found, expected, "{name}");
        }
        // Every row that a block got is behind it or among the rejected ones, unless the block makes more of one.
        let rejected: usize = result.blocks.iter().flat_map(|block| block.rejected.values()).sum();
        assert_eq!(rejected, result.rejected.len(), "{name}");
        let ids: BTreeSet<&str> = result.kept.iter().map(|sample| sample.id.as_str()).collect();
        assert_eq!(ids.len(), found.len(), "{name}: ids are different");
        for sample in &result.kept {
            assert!(
                sample.question_and_answer().is_some() || !name.contains('/') || name.starts_with("eval"),
                "{name}"
            );
        }
    }
}
