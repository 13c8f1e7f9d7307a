//! The journal of a run: a header and one line for each finished item, from which an interrupted run goes on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::evaluation::{ItemResult, doc_hash, sha256};
use crate::task::Task;

/// What a journal was written for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    espalier_journal: u32,
    task: String,
    task_hash: String,
    engine: String,
}

impl Header {
    pub(crate) fn new(task: &Task, engine: &str) -> Self {
        let mut everything = serde_json::to_string(&task.generation).unwrap_or_default();
        for item in &task.items {
            everything.push_str(&doc_hash(item));
            everything.push_str(&sha256(&item.prompt.as_text()));
            everything.push_str(&sha256(&item.answer));
        }
        Self { espalier_journal: 1, task: task.name.clone(), task_hash: sha256(&everything), engine: engine.to_owned() }
    }
}

/// An open journal.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens or starts the journal at `path`, and gives back the finished items. A last line that was cut off while it was written
    /// is dropped; a journal with another header is refused.
    pub(crate) fn open(path: &Path, header: &Header) -> Result<(Self, Vec<ItemResult>), EvalError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(EvalError::file(path, "open the journal"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(EvalError::file(path, "read the journal"))?;
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let mut results = Vec::new();
        for (index, line) in bytes[..complete].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate()
        {
            let problem = |error: serde_json::Error| EvalError::Line {
                path: path.to_owned(),
                line: index + 1,
                problem: format!("not a line of a journal ({error}); delete the file to evaluate anew"),
            };
            if index == 0 {
                let found: Header = serde_json::from_slice(line).map_err(problem)?;
                check(path, &found, header)?;
            } else {
                results.push(serde_json::from_slice(line).map_err(problem)?);
            }
        }
        file.set_len(complete as u64).map_err(EvalError::file(path, "cut the torn line off the journal"))?;
        file.seek(SeekFrom::End(0)).map_err(EvalError::file(path, "write the journal"))?;
        let mut journal = Self { path: path.to_owned(), file };
        if complete == 0 {
            journal.write_line(header)?;
        }
        Ok((journal, results))
    }

    /// Adds a finished item.
    pub(crate) fn append(&mut self, result: &ItemResult) -> Result<(), EvalError> {
        self.write_line(result)
    }

    fn write_line(&mut self, value: &impl Serialize) -> Result<(), EvalError> {
        // Strings, numbers and lists always have a JSON form.
        let mut line = serde_json::to_string(value).unwrap_or_default();
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(EvalError::file(&self.path, "write the journal"))
    }
}

fn check(path: &Path, found: &Header, expected: &Header) -> Result<(), EvalError> {
    let differs = |what, found: &str, expected: &str| {
        Err(EvalError::Journal { path: path.to_owned(), what, found: found.to_owned(), expected: expected.to_owned() })
    };
    if found.task != expected.task {
        return differs("task", &found.task, &expected.task);
    }
    if found.task_hash != expected.task_hash {
        return differs("version of the task", &found.task_hash, &expected.task_hash);
    }
    if found.engine != expected.engine {
        return differs("model", &found.engine, &expected.engine);
    }
    Ok(())
}
