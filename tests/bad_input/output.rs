//! Standard output and standard error that nobody reads, or that cannot be written.

use crate::binary::Bench;
use std::fs::OpenOptions;
use std::io::{PipeWriter, pipe};

/// A pipe whose reader has gone away.
fn closed() -> PipeWriter {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    writer
}

#[test]
fn a_reader_that_has_gone_away_ends_a_command_without_a_word() {
    let bench = Bench::new();
    let plan = ["plan", "pipelines/tiny.yaml"];
    for arguments in [&plan[..], &[&plan[..], &["--json"]].concat(), &["model", "list"], &["doctor"]] {
        let output = bench.command(arguments).stdout(closed()).output().expect("the binary starts");
        let said = bench.said(&output);
        assert_eq!((said.code, said.err.as_str()), (141, ""), "{arguments:?}");
    }
    let folder = bench.text("run");
    let run = ["run", "pipelines/tiny.yaml", "--run-dir", &folder];
    let output = bench.command(&run).stderr(closed()).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(141), "what happens is told to nobody");
    assert_eq!(bench.pipeline("pipelines/tiny.yaml", "run").code, 0, "and the same command goes on");

    let output = bench.command(&["plan", "no-such.yaml"]).stderr(closed()).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2), "an error that nobody reads is still that error");
}

#[test]
#[cfg(target_os = "linux")]
fn results_that_cannot_be_written_are_an_error() {
    let bench = Bench::new();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let output = bench.command(&["plan", "pipelines/tiny.yaml"]).stdout(full).output().expect("the binary starts");
    let said = bench.said(&output);
    assert_eq!(
        said.refusal(),
        "error: cannot write to standard output: No space left on device (os error 28)\nexit code 1"
    );
}
