//! A disk that is full. A limit on the size of files gives the same errors at the same calls, and needs no rights.

use crate::binary::Bench;
use std::process::{Command, Stdio};

#[test]
fn a_full_disk_stops_the_run_with_a_remedy_and_space_lets_it_go_on() {
    let bench = Bench::new();
    let whole = bench.pipeline("pipelines/tiny.yaml", "whole");
    assert_eq!(whole.code, 0, "{}", whole.err);
    let expected = bench.results("whole");
    let mut words = String::new();
    // Blocks of 512 bytes: the limits stop different stages, from the first journal to the last file.
    for (number, blocks) in [4, 72, 100, 400, 640].into_iter().enumerate() {
        let folder = format!("run{number}");
        let mut command = Command::new("sh");
        // The signal that a passed limit sends is ignored, so that the write fails instead.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_pipeline"));
        command.args(["run", "pipelines/tiny.yaml", "--run-dir"]).arg(bench.path(&folder));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        let said = bench.said(&command.output().expect("a shell"));
        assert_eq!(said.code, 1, "{blocks} blocks: {}", said.err);
        words += &format!("{}\n\n", said.refusal());
        for (name, content) in bench.results(&folder) {
            let finished = expected.get(&name) == Some(&content);
            assert!(finished || name == "pipeline.lock", "{blocks} blocks: {name} is there and not finished");
        }
        let again = bench.pipeline("pipelines/tiny.yaml", &folder);
        assert_eq!(again.code, 0, "{}", again.err);
        let made = bench.results(&folder);
        let different: Vec<&String> = made.keys().filter(|name| made.get(*name) != expected.get(*name)).collect();
        assert!(different.is_empty() && made.len() == expected.len(), "these files differ: {different:?}");
    }
    insta::assert_snapshot!(words);
}
