//! Accepted rows as chat lines: `{"messages": [...], "metadata": {...}, "id": "..."}`.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Example;

    #[test]
    fn accepted_rows_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.jsonl");
        let turns = vec![Turn::new("user", "q\n\"1\""), Turn::new("assistant", "a")];
        let accepted = Row {
            turns: turns.clone(),
            id: "1f".into(),
            leaf: "dates".into(),
            kind: "freeform_skill".into(),
            verdict: Verdict::Accepted,
            ..Row::default()
        };
        write_messages_jsonl(&path, &[accepted, Row::default()]).unwrap();
        let records: Vec<_> = crate::Records::open(&path, None).unwrap().collect();
        let [Ok(record)] = <[_; 1]>::try_from(records).unwrap() else { panic!("one row") };
        let example = record.example().unwrap();
        assert_eq!(example.content, Example::conversation(&turns, 1).content);
        assert_eq!((example.id.as_str(), example.leaf.as_deref()), ("1f", Some("dates")));
        assert_eq!(example.kind.as_deref(), Some("freeform_skill"));
    }
}
