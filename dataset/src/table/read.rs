//! A table of rows, read a row group at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::column::COLUMNS;
use crate::error::DatasetError;
use crate::row::Row;

/// Reads the rows of a table that [`crate::write_parquet`] wrote. Columns that we do not know are ignored.
///
/// # Errors
/// When the file cannot be opened, is damaged, or lacks a column that every table has.
pub fn read_parquet(path: &Path) -> Result<Vec<Row>, DatasetError> {
    RowReader::open(path)?.collect()
}

/// The rows of a table, read as they are asked for: never more than a batch of them is held.
pub struct RowReader {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    read: VecDeque<Row>,
    rows: usize,
}

impl std::fmt::Debug for RowReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RowReader").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl RowReader {
    /// Opens a table.
    ///
    /// # Errors
    /// When the file cannot be opened or is no Parquet file.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let file = File::open(path).map_err(DatasetError::file("read", path))?;
        let refuse = |error: parquet::errors::ParquetError| DatasetError::table(path, &error);
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(refuse)?;
        let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let batches = builder.build().map_err(refuse)?;
        Ok(Self { path: path.to_path_buf(), batches, read: VecDeque::new(), rows })
    }

    /// Rows of the table.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Iterator for RowReader {
    type Item = Result<Row, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.read.is_empty() {
            let batch = self.batches.next()?.map_err(|error| error.to_string());
            match batch.and_then(|batch| from_batch(&batch)) {
                Ok(rows) => self.read.extend(rows),
                Err(reason) => return Some(Err(DatasetError::table(&self.path, &reason))),
            }
        }
        self.read.pop_front().map(Ok)
    }
}

fn from_batch(batch: &RecordBatch) -> Result<Vec<Row>, String> {
    let mut rows = vec![Row::default(); batch.num_rows()];
    for column in &COLUMNS {
        column.read(batch, &mut rows)?;
    }
    Ok(rows)
}
