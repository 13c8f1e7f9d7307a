//! Accepted rows as chat lines: `{"messages": [...], "metadata": {...}, "id": "..."}`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic::write_atomically;
use crate::error::DatasetError;
use crate::row::{Row, Turn, Verdict};

#[derive(Serialize)]
struct Line<'a> {
    messages: &'a [Turn],
    metadata: Metadata<'a>,
    id: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    leaf: &'a str,
    kind: &'a str,
    flow: &'a str,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<&'a str>,
}

#[derive(Deserialize)]
struct LineIn {
    messages: Vec<Turn>,
}

/// Writes the accepted rows, one JSON object a line, atomically.
///
/// # Errors
/// When the file cannot be written.
pub fn write_messages_jsonl(path: &Path, rows: &[Row]) -> Result<(), DatasetError> {
    write_atomically(path, |out| {
        for row in rows.iter().filter(|row| row.verdict == Verdict::Accepted) {
            let line = Line {
                messages: &row.turns,
                metadata: Metadata {
                    leaf: &row.leaf,
                    kind: &row.kind,
                    flow: &row.flow,
                    index: row.index,
                    document: row.document.as_deref(),
                    license: row.license.as_deref(),
                },
                id: &row.id,
            };
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
    .map_err(DatasetError::file("write", path))
}

/// Reads the conversations of such a file; other keys than `messages` are ignored, empty lines skipped. Files of other tools
/// with `messages` are read too.
///
/// # Errors
/// When the file cannot be read, or a line is no conversation: with the line's number.
pub fn read_messages_jsonl(path: &Path) -> Result<Vec<Vec<Turn>>, DatasetError> {
    let file = File::open(path).map_err(DatasetError::file("read", path))?;
    let mut conversations = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(DatasetError::file("read", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let refuse = |reason: String| DatasetError::Line { path: path.to_path_buf(), line: index + 1, reason };
        let read: LineIn = serde_json::from_str(&line).map_err(|error| {
            refuse(format!(
                "not a conversation: {error} (a line is {{\"messages\": [{{\"role\": \"user\", \"content\": \"...\"}}, ...]}})"
            ))
        })?;
        if read.messages.is_empty() {
            return Err(refuse("the conversation is empty (remove the line)".to_owned()));
        }
        conversations.push(read.messages);
    }
    Ok(conversations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_rows_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.jsonl");
        let turns = vec![Turn::new("user", "q\n\"1\""), Turn::new("assistant", "a")];
        let accepted = Row { turns: turns.clone(), verdict: Verdict::Accepted, ..Row::default() };
        write_messages_jsonl(&path, &[accepted, Row::default()]).unwrap();
        assert_eq!(read_messages_jsonl(&path).unwrap(), [turns]);
        std::fs::write(&path, "{\"messages\": []}\n").unwrap();
        let error = read_messages_jsonl(&path).unwrap_err().to_string();
        assert!(error.contains("messages.jsonl:1: "), "{error}");
    }
}
