//! Rows as a Parquet table: one column a field, `turns` a list of `{role, content}`.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, StructBuilder,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::atomic::write_atomically;
use crate::error::DatasetError;
use crate::row::{Row, Turn, Verdict};

/// The name of the writer in the file; without a version, so that equal rows stay equal bytes.
pub(crate) const CREATED_BY: &str = "espalier";

fn turn_fields() -> Fields {
    Fields::from(vec![Field::new("role", DataType::Utf8, false), Field::new("content", DataType::Utf8, false)])
}

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    let optional = |name: &str| Field::new(name, DataType::Utf8, true);
    let list =
        |name: &str, item: DataType| Field::new(name, DataType::List(Arc::new(Field::new("item", item, false))), false);
    Schema::new(vec![
        text("id"),
        text("leaf"),
        text("kind"),
        number("index"),
        list("turns", DataType::Struct(turn_fields())),
        text("slots"),
        list("seed_ids", DataType::Utf8),
        optional("document"),
        text("flow"),
        text("prompt_hash"),
        text("model"),
        number("sampling_seed"),
        text("answer"),
        text("verdict"),
        text("reason"),
        optional("license"),
    ])
}

fn to_batch(rows: &[Row]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text =
        |field: fn(&Row) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(field))) };
    let number =
        |field: fn(&Row) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(rows.iter().map(field))) };
    let optional =
        |field: fn(&Row) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(field).collect::<StringArray>()) };
    RecordBatch::try_new(
        Arc::new(schema()),
        vec![
            text(|row| &row.id),
            text(|row| &row.leaf),
            text(|row| &row.kind),
            number(|row| row.index),
            turns_column(rows),
            text(|row| &row.slots),
            seeds_column(rows),
            optional(|row| row.document.as_deref()),
            text(|row| &row.flow),
            text(|row| &row.prompt_hash),
            text(|row| &row.model),
            number(|row| row.sampling_seed),
            text(|row| &row.answer),
            text(|row| row.verdict.name()),
            text(|row| &row.reason),
            optional(|row| row.license.as_deref()),
        ],
    )
}

fn turns_column(rows: &[Row]) -> ArrayRef {
    let turns = StructBuilder::new(turn_fields(), vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new())]);
    let item = Field::new("item", DataType::Struct(turn_fields()), false);
    let mut list = ListBuilder::new(turns).with_field(item);
    for row in rows {
        for turn in &row.turns {
            let builder = list.values();
            for (index, value) in [&turn.role, &turn.content].into_iter().enumerate() {
                if let Some(column) = builder.field_builder::<StringBuilder>(index) {
                    column.append_value(value);
                }
            }
            builder.append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}

fn seeds_column(rows: &[Row]) -> ArrayRef {
    let mut list = ListBuilder::new(StringBuilder::new()).with_field(Field::new("item", DataType::Utf8, false));
    for row in rows {
        for seed in &row.seed_ids {
            list.values().append_value(seed);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}

/// Writes rows as a snappy-compressed Parquet table, atomically. Equal rows give equal bytes.
///
/// # Errors
/// When the file cannot be written.
pub fn write_parquet(path: &Path, rows: &[Row]) -> Result<(), DatasetError> {
    let batch = to_batch(rows).map_err(|error| DatasetError::table(path, &error))?;
    let properties =
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_created_by(CREATED_BY.to_owned()).build();
    write_atomically(path, |out| {
        let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(())
    })
    .map_err(DatasetError::file("write", path))
}

/// Reads the rows of a table that [`write_parquet`] wrote. Columns that we do not know are ignored.
///
/// # Errors
/// When the file cannot be opened, is damaged, or lacks a column.
pub fn read_parquet(path: &Path) -> Result<Vec<Row>, DatasetError> {
    open_parquet(path)?.map(|row| row.map_err(|reason| DatasetError::table(path, &reason))).collect()
}

/// The rows of a table, read as they are asked for.
pub(crate) struct RowReader {
    batches: ParquetRecordBatchReader,
    read: VecDeque<Row>,
    rows: usize,
}

impl RowReader {
    /// Rows of the table.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
}

/// Opens a table.
pub(crate) fn open_parquet(path: &Path) -> Result<RowReader, DatasetError> {
    let file = File::open(path).map_err(DatasetError::file("read", path))?;
    let refuse = |error: parquet::errors::ParquetError| DatasetError::table(path, &error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(refuse)?;
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    Ok(RowReader { batches: builder.build().map_err(refuse)?, read: VecDeque::new(), rows })
}

impl Iterator for RowReader {
    type Item = Result<Row, String>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.read.is_empty() {
            let mut rows = Vec::new();
            let batch = self.batches.next()?.map_err(|error| error.to_string());
            if let Err(reason) = batch.and_then(|batch| from_batch(&batch, &mut rows)) {
                return Some(Err(reason));
            }
            self.read.extend(rows);
        }
        self.read.pop_front().map(Ok)
    }
}

pub(crate) fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("the column `{name}` is missing"))?;
    column
        .as_any()
        .downcast_ref::<T>()
        .ok_or_else(|| format!("the column `{name}` has the type {}", column.data_type()))
}

fn texts(array: &ArrayRef, name: &str) -> Result<StringArray, String> {
    array
        .as_any()
        .downcast_ref::<StringArray>()
        .cloned()
        .ok_or_else(|| format!("`{name}` has the type {}", array.data_type()))
}

fn from_batch(batch: &RecordBatch, rows: &mut Vec<Row>) -> Result<(), String> {
    let text = |name: &str| column::<StringArray>(batch, name);
    let number = |name: &str| column::<UInt64Array>(batch, name);
    let (id, leaf, kind, index) = (text("id")?, text("leaf")?, text("kind")?, number("index")?);
    let (slots, document, flow) = (text("slots")?, text("document")?, text("flow")?);
    let (prompt_hash, model, sampling_seed) = (text("prompt_hash")?, text("model")?, number("sampling_seed")?);
    let (answer, verdict, reason, license) = (text("answer")?, text("verdict")?, text("reason")?, text("license")?);
    let turns = column::<ListArray>(batch, "turns")?;
    let seeds = column::<ListArray>(batch, "seed_ids")?;
    let optional = |array: &StringArray, row: usize| array.is_valid(row).then(|| array.value(row).to_owned());
    for row in 0..batch.num_rows() {
        let turns = turns.value(row);
        let turns = turns.as_any().downcast_ref::<StructArray>().ok_or("`turns` is not a list of structures")?;
        let part =
            |name: &str| texts(turns.column_by_name(name).ok_or_else(|| format!("`turns` lacks `{name}`"))?, name);
        let (roles, contents) = (part("role")?, part("content")?);
        let turns = (0..turns.len()).map(|i| Turn::new(roles.value(i), contents.value(i))).collect();
        let seeds = texts(&seeds.value(row), "seed_ids")?;
        let verdict = verdict.value(row);
        rows.push(Row {
            id: id.value(row).to_owned(),
            leaf: leaf.value(row).to_owned(),
            kind: kind.value(row).to_owned(),
            index: index.value(row),
            turns,
            slots: slots.value(row).to_owned(),
            seed_ids: (0..seeds.len()).map(|i| seeds.value(i).to_owned()).collect(),
            document: optional(document, row),
            flow: flow.value(row).to_owned(),
            prompt_hash: prompt_hash.value(row).to_owned(),
            model: model.value(row).to_owned(),
            sampling_seed: sampling_seed.value(row),
            answer: answer.value(row).to_owned(),
            verdict: Verdict::from_name(verdict).ok_or_else(|| format!("unknown verdict {verdict:?}"))?,
            reason: reason.value(row).to_owned(),
            license: optional(license, row),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let turn = (".{0,4}", ".{0,20}").prop_map(|(role, content)| Turn { role, content });
        let row = (
            (".{0,8}", ".{0,8}", any::<u64>(), proptest::collection::vec(turn, 0..4)),
            (proptest::collection::vec(".{0,3}", 0..4), proptest::option::of(".{0,8}"), any::<u64>(), any::<bool>()),
        );
        let row = row.prop_map(|((id, leaf, index, turns), (seed_ids, document, sampling_seed, accepted))| Row {
            id,
            leaf,
            index,
            turns,
            seed_ids,
            license: document.clone(),
            document,
            sampling_seed,
            verdict: if accepted { Verdict::Accepted } else { Verdict::Rejected },
            ..Row::default()
        });
        proptest::collection::vec(row, 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rows_come_back_and_bytes_repeat(rows in rows()) {
            let folder = tempfile::tempdir().unwrap();
            let (a, b) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
            write_parquet(&a, &rows).unwrap();
            write_parquet(&b, &rows).unwrap();
            prop_assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
            prop_assert_eq!(read_parquet(&a).unwrap(), rows);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write_parquet(&path, &[Row::default()]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 4, 50, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = read_parquet(&path).unwrap_err().to_string();
            assert!(error.contains("a.parquet"), "{error}");
        }
    }
}
