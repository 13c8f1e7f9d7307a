//! A table of rows, written a row group at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::column::{COLUMNS, row_schema};
use crate::atomic::AtomicFile;
use crate::error::DatasetError;
use crate::row::Row;

/// The name of the writer in the file; without a version, so that equal rows stay equal bytes.
pub(crate) const CREATED_BY: &str = "espalier";

/// A row group ends at the first of these: so much is held until it is written.
const GROUP_ROWS: usize = 16_384;
const GROUP_BYTES: usize = 32 << 20;

/// Writes rows as a snappy-compressed Parquet table, atomically. Equal rows give equal bytes.
///
/// # Errors
/// When the file cannot be written.
pub fn write_parquet(path: &Path, rows: &[Row]) -> Result<(), DatasetError> {
    let mut writer = RowWriter::create(path)?;
    rows.iter().try_for_each(|row| writer.write(row.clone()))?;
    writer.finish()
}

/// A table that is written as its rows come, of which it never holds more than a row group. It has its name only once
/// [`finish`](Self::finish) returns; one that is dropped before leaves nothing. Equal rows give equal bytes.
pub struct RowWriter {
    path: PathBuf,
    writer: ArrowWriter<AtomicFile>,
    group: Vec<Row>,
    bytes: usize,
    rows: u64,
}

impl std::fmt::Debug for RowWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RowWriter").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl RowWriter {
    /// Begins a table.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, DatasetError> {
        let file = AtomicFile::create(path).map_err(DatasetError::file("write", path))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let properties = properties.set_created_by(CREATED_BY.to_owned()).build();
        let writer = ArrowWriter::try_new(file, Arc::new(row_schema()), Some(properties));
        let writer = writer.map_err(|error| DatasetError::file("write", path)(error.into()))?;
        Ok(Self { path: path.to_path_buf(), writer, group: Vec::new(), bytes: 0, rows: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, row: Row) -> Result<(), DatasetError> {
        self.bytes += size(&row);
        self.rows += 1;
        self.group.push(row);
        if self.group.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    /// Rows that were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Ends the table and gives it its name.
    ///
    /// # Errors
    /// When the file cannot be written, synced or renamed.
    pub fn finish(mut self) -> Result<(), DatasetError> {
        self.end_group()?;
        let refuse = DatasetError::file("write", &self.path);
        self.writer.into_inner().map_err(std::io::Error::from).and_then(AtomicFile::commit).map_err(refuse)
    }

    fn end_group(&mut self) -> Result<(), DatasetError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let arrays = COLUMNS.iter().map(|column| column.array(&self.group)).collect();
        let batch = RecordBatch::try_new(Arc::new(row_schema()), arrays);
        let batch = batch.map_err(|error| DatasetError::table(&self.path, &error))?;
        let written = self.writer.write(&batch).and_then(|()| self.writer.flush());
        self.group.clear();
        self.bytes = 0;
        written.map_err(|error| DatasetError::file("write", &self.path)(error.into()))
    }
}

/// About how much memory a row takes: the texts that can be long.
fn size(row: &Row) -> usize {
    let turns: usize = row.turns.iter().map(|turn| turn.content.len()).sum();
    let optional = [&row.reasoning, &row.chunk, &row.context].into_iter().flatten();
    turns + row.answer.len() + row.slots.len() + optional.map(String::len).sum::<usize>() + 512
}
