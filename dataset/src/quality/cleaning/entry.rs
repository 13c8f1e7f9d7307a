//! Rows of the two kinds of files, a table of ours and lines of JSON: as they are read, looked at and written again.

use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Rejection;
use crate::atomic::AtomicFile;
use crate::error::DatasetError;
use crate::formats::{Example, Format, Record, Records};
use crate::quality::masking::{Masked, mask, mask_row};
use crate::quality::sample::Sample;
use crate::row::{Row, Verdict};
use crate::table::{RowReader, RowWriter};

/// The rows of a file, one after the other.
pub(super) enum Entries {
    Table { reader: RowReader, read: usize },
    Lines(Records),
}

impl Entries {
    pub(super) fn open(path: &Path) -> Result<Self, DatasetError> {
        // The records of a table are its accepted rows only: its own reader has them all.
        let records = Records::open(path, None)?;
        match records.format() {
            Format::Rows => Ok(Self::Table { reader: RowReader::open(path)?, read: 0 }),
            Format::Document => Err(DatasetError::whole(
                path,
                "a document has no rows to clean (name a file of rows: .parquet, .jsonl or .json)",
            )),
            _ => Ok(Self::Lines(records)),
        }
    }

    /// How much was read, and how much there is: rows of a table, bytes of lines.
    pub(super) fn progress(&self) -> (u64, u64) {
        match self {
            Self::Table { reader, read } => (*read as u64, reader.rows() as u64),
            Self::Lines(records) => (records.bytes_read(), records.bytes()),
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Table { reader, read } => reader.next().map(|row| {
                *read += 1;
                Ok(Entry::Row(Box::new(row?), *read))
            }),
            Self::Lines(records) => {
                records.next().map(|record| Ok(Entry::of_record(record.map_err(DatasetError::Problem)?)))
            }
        }
    }
}

/// A row.
pub(super) enum Entry {
    /// Of a table, with its place from 1.
    Row(Box<Row>, usize),
    /// Of a file of JSON: its bytes, and what they say.
    Line { line: usize, json: Vec<u8>, example: Result<Box<Example>, String>, record: Option<Record> },
}

impl Entry {
    fn of_record(record: Record) -> Self {
        let (line, json) = (record.line(), record.json().unwrap_or_default().to_vec());
        Self::Line { line, json, example: Err("not read".to_owned()), record: Some(record) }
    }

    /// Reads a line; done where many rows are looked at at the same time.
    fn read(&mut self) {
        if let Self::Line { example, record, .. } = self
            && let Some(record) = record.take()
        {
            *example = record.example().map(Box::new);
        }
    }

    /// Replaces what is personal, of a line in every text but its `id`.
    pub(super) fn mask(&mut self) -> Masked {
        let mut masked = Masked::new();
        match self {
            Self::Row(row, _) => masked = mask_row(row),
            Self::Line { json, record, .. } => {
                if let Ok(mut value) = serde_json::from_slice::<Value>(json) {
                    mask_value(&mut value, &mut masked);
                    if !masked.is_empty() {
                        *json = value.to_string().into_bytes();
                        *record = record.take().map(|record| record.with_json(json.clone()));
                    }
                }
            }
        }
        masked
    }

    /// Why it is out before any check.
    pub(super) fn rejection(&mut self) -> Option<Rejection> {
        self.read();
        match self {
            Self::Row(row, _) => (row.verdict == Verdict::Rejected).then_some(Rejection::Before),
            Self::Line { example, .. } => example.as_ref().err().cloned().map(Rejection::Unreadable),
        }
    }

    pub(super) fn sample(&self) -> Option<Sample<'_>> {
        match self {
            Self::Row(row, _) => Some(Sample::from(&**row)),
            Self::Line { example, .. } => example.as_deref().ok().map(Sample::from),
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Row(row, _) => &row.id,
            Self::Line { example, .. } => example.as_ref().map_or("", |example| example.id.as_str()),
        }
    }

    pub(super) fn leaf(&self) -> &str {
        match self {
            Self::Row(row, _) => &row.leaf,
            Self::Line { example, .. } => {
                example.as_ref().ok().and_then(|example| example.leaf.as_deref()).unwrap_or_default()
            }
        }
    }

    /// Line in a file, place in a table, from 1.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::Row(_, line) | Self::Line { line, .. } => *line,
        }
    }

    /// The reason of a row that was rejected by somebody else.
    pub(super) fn reason_before(&self) -> String {
        match self {
            Self::Row(row, _) => row.reason.clone(),
            Self::Line { .. } => String::new(),
        }
    }

    /// The row for a ledger; what is no JSON as a text.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Row(row, _) => serde_json::to_value(row).unwrap_or_default(),
            Self::Line { json, .. } => serde_json::from_slice(json)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(json).trim_end().to_owned())),
        }
    }
}

fn mask_value(value: &mut Value, masked: &mut Masked) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(changed) = mask(text, masked) {
                *text = changed;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask_value(value, masked)),
        Value::Object(values) => {
            values.iter_mut().filter(|(key, _)| *key != "id").for_each(|(_, value)| mask_value(value, masked));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The cleaned file.
pub(super) enum Output {
    Table(Box<RowWriter>),
    Lines(AtomicFile, PathBuf),
}

impl Output {
    pub(super) fn create(path: &Path, entries: &Entries) -> Result<Self, DatasetError> {
        let table = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"));
        let refuse = |reason: &str| DatasetError::whole(path, reason);
        match entries {
            Entries::Table { .. } if table => Ok(Self::Table(Box::new(RowWriter::create(path)?))),
            Entries::Lines(_) if !table => {
                let file = AtomicFile::create(path).map_err(DatasetError::file("write", path))?;
                Ok(Self::Lines(file, path.to_path_buf()))
            }
            Entries::Table { .. } => Err(refuse("the input is a table: name an output that ends in .parquet")),
            Entries::Lines(_) => Err(refuse("the input is lines of JSON: name an output that ends in .jsonl")),
        }
    }

    pub(super) fn write(&mut self, entry: Entry, rejection: Option<&Rejection>) -> Result<(), DatasetError> {
        match (self, entry) {
            (Self::Table(table), mut entry) => {
                let reason = rejection.map(|rejection| rejection.reason(&entry));
                let Entry::Row(row, _) = &mut entry else { return Ok(()) };
                if let Some(reason) = reason {
                    row.verdict = Verdict::Rejected;
                    row.reason = reason;
                }
                table.write(std::mem::take(row))
            }
            (Self::Lines(file, path), Entry::Line { json, .. }) if rejection.is_none() => {
                let failed = DatasetError::file("write", path);
                let json = json.trim_ascii();
                // An element of a list may stand on several lines.
                let written = match serde_json::from_slice::<Value>(json) {
                    Ok(value) if json.contains(&b'\n') => writeln!(file, "{value}"),
                    _ => file.write_all(json).and_then(|()| file.write_all(b"\n")),
                };
                written.map_err(failed)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<(), DatasetError> {
        match self {
            Self::Table(table) => table.finish(),
            Self::Lines(file, path) => file.commit().map_err(DatasetError::file("write", &path)),
        }
    }
}
