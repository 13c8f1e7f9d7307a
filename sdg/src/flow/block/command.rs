//! Blocks that are programs of somebody else: rows in, rows out, as lines of JSON.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::error::SdgError;
use crate::flow::sample::{Passed, Rejected, Sample};

/// A program that gets a line of JSON for each row (its columns, and `id`) and writes lines of the same form: any number for a
/// row, each with the row's `id`. A line with `rejected` drops its row with that reason; a row without a line is dropped too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) run: Vec<String>,
    /// Where it runs: the flow's folder.
    pub(crate) folder: PathBuf,
    /// The longest that it may take.
    pub(crate) timeout: Duration,
    /// The columns that it adds.
    pub(crate) outputs: Vec<String>,
}

/// More than this is not what a block writes.
const MAX_BYTES: u64 = 1 << 30;

impl Program {
    pub(crate) fn apply(&self, block: &str, rows: Vec<Sample>) -> Result<Passed, SdgError> {
        if rows.is_empty() {
            return Ok(Passed::default());
        }
        let fails = |reason: String| SdgError::Block { block: block.to_owned(), reason };
        let lines = self.answers(&rows).map_err(fails)?;
        let known: HashMap<&str, usize> =
            rows.iter().enumerate().map(|(row, sample)| (sample.id.as_str(), row)).collect();
        let mut made: BTreeMap<usize, Vec<Map<String, Value>>> = BTreeMap::new();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |reason: &str| fails(format!("line {} that it wrote {reason}", number + 1));
            let value = serde_json::from_str(line).map_err(|error| wrong(&format!("is not JSON: {error}")))?;
            let Value::Object(mut columns) = value else { return Err(wrong("is not a JSON object")) };
            let id = columns.shift_remove("id");
            let row = id.as_ref().and_then(Value::as_str).and_then(|id| known.get(id));
            made.entry(*row.ok_or_else(|| wrong("has no `id` of a row that it got"))?).or_default().push(columns);
        }
        let mut passed = Passed::default();
        for (row, sample) in rows.iter().enumerate() {
            match made.remove(&row) {
                None => passed.rejected.push(Rejected::new(
                    sample.clone(),
                    block,
                    "dropped by the program",
                    "no line for it",
                )),
                Some(lines) => lines.into_iter().enumerate().for_each(|(ordinal, columns)| {
                    put(sample.child(block, ordinal), columns, block, &mut passed);
                }),
            }
        }
        Ok(passed)
    }

    /// The lines that the program writes.
    fn answers(&self, rows: &[Sample]) -> Result<Vec<String>, String> {
        let (program, arguments) = self.run.split_first().ok_or("`run` is empty")?;
        let program = if program.contains('/') { self.folder.join(program) } else { program.into() };
        let mut child = Command::new(&program)
            .args(arguments)
            .current_dir(if self.folder.as_os_str().is_empty() { ".".as_ref() } else { self.folder.as_path() })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let lines: Vec<Vec<u8>> = rows.iter().map(line).collect::<Result<_, _>>()?;
        let stdin = child.stdin.take();
        let writer = thread::spawn(move || {
            // A program that has read enough closes its end; what it wrote counts.
            stdin.map(|mut stdin| lines.iter().try_for_each(|line| stdin.write_all(line)))
        });
        let stdout = child.stdout.take().map(|out| thread::spawn(move || read_lines(out)));
        let stderr = child.stderr.take().map(|out| thread::spawn(move || last_line(out)));
        let ended = wait(&mut child, self.timeout);
        if let Ok(None) = ended {
            // What it started may still hold the pipes: nobody waits for them.
            let seconds = self.timeout.as_secs();
            return Err(format!("{} took longer than {seconds} s; raise `timeout_seconds`", program.display()));
        }
        let _ = writer.join();
        let written = stdout.and_then(|out| out.join().ok()).unwrap_or_else(|| Ok(Vec::new()));
        let said = stderr.and_then(|out| out.join().ok()).unwrap_or_default();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        match ended {
            Ok(Some(status)) if status.success() => written,
            Ok(Some(status)) => Err(format!("{} ended with {status}{said}", program.display())),
            Ok(None) => Err(format!("{} did not end", program.display())),
            Err(error) => Err(format!("{} cannot be waited for: {error}", program.display())),
        }
    }
}

fn line(sample: &Sample) -> Result<Vec<u8>, String> {
    let mut columns = sample.columns.clone();
    columns.insert("id".to_owned(), sample.id.as_str().into());
    let mut line = serde_json::to_vec(&columns).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(line)
}

/// A row as the program wants it. Columns that it changed are no longer a model's.
fn put(mut sample: Sample, mut columns: Map<String, Value>, block: &str, passed: &mut Passed) {
    if let Some(reason) = columns.shift_remove("rejected") {
        let reason = reason.as_str().map_or_else(|| reason.to_string(), str::to_owned);
        passed.rejected.push(Rejected::new(sample, block, "dropped by the program", reason));
        return;
    }
    let before = std::mem::take(&mut sample.columns);
    sample.written.retain(|column, _| columns.get(column).is_some_and(|value| before.get(column) == Some(value)));
    sample.columns = columns;
    passed.kept.push(sample);
}

fn read_lines(out: impl Read) -> Result<Vec<String>, String> {
    BufReader::new(out.take(MAX_BYTES))
        .lines()
        .collect::<Result<_, _>>()
        .map_err(|error| format!("its output: {error}"))
}

fn last_line(out: impl Read) -> String {
    let lines = BufReader::new(out.take(MAX_BYTES)).lines().map_while(Result::ok);
    lines.filter(|line| !line.trim().is_empty()).last().unwrap_or_default()
}

/// Waits, and kills what takes too long.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flow::sample::Origin;

    fn run(script: &str, seconds: u64) -> Result<Passed, String> {
        let program = Program {
            run: ["sh", "-c", script].map(str::to_owned).to_vec(),
            folder: PathBuf::new(),
            timeout: Duration::from_secs(seconds),
            outputs: Vec::new(),
        };
        let row = |number: usize| {
            let columns = Map::from_iter([("a".to_owned(), json!(number))]);
            Sample::new("leaf", &number.to_le_bytes(), columns, Origin::default())
        };
        program.apply("b", (0..3).map(row).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_go_through_a_program() {
        let passed = run("sed -e '/\"a\":1/d' -e 's/\"a\":2/\"rejected\":\"two\"/' -e 's/\"a\"/\"b\"/'", 20).unwrap();
        assert_eq!(passed.kept.len(), 1);
        assert_eq!(Value::Object(passed.kept[0].columns.clone()), json!({"b": 0}));
        let reasons: Vec<&str> = passed.rejected.iter().map(|row| row.detail.as_str()).collect();
        assert_eq!(reasons, ["no line for it", "two"]);
        assert_eq!(run("cat; :", 20).unwrap().kept.len(), 3);
    }

    #[test]
    fn what_a_program_does_wrong_is_said() {
        let said = |script: &str, seconds: u64| run(script, seconds).unwrap_err();
        assert_eq!(
            said("cat > /dev/null; echo no >&2; exit 3", 20),
            "the block b fails: sh ended with exit status: 3: no"
        );
        assert!(said("cat > /dev/null; echo x", 20).starts_with("the block b fails: line 1 that it wrote is not JSON"));
        assert!(said("cat > /dev/null; echo '{\"id\": \"x\"}'", 20).ends_with("has no `id` of a row that it got"));
        assert!(said("exec sleep 60", 0).contains("took longer than 0 s"));
    }
}
