//! Rows as a Parquet table with a fixed Arrow schema. Equal rows give equal bytes.

use crate::error::{DatasetError, write_atomically};
use crate::row::{Row, Turn, Verdict};
use arrow::array::{
    Array, ArrayRef, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, StructBuilder, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The columns of a row table.
pub fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::UInt64, false);
    let list = |name: &str, item: DataType| Field::new(name, DataType::List(Arc::new(Field::new("item", item, true))), false);
    Schema::new(vec![
        text("id"),
        text("leaf"),
        text("kind"),
        number("index"),
        list("turns", DataType::Struct(turn_fields())),
        text("slots"),
        list("seed_ids", DataType::Utf8),
        Field::new("document", DataType::Utf8, true),
        text("flow"),
        text("prompt_hash"),
        text("model"),
        number("sampling_seed"),
        text("answer"),
        text("verdict"),
        text("reason"),
        Field::new("license", DataType::Utf8, true),
    ])
}

fn turn_fields() -> Fields {
    Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)])
}

/// Writes rows atomically.
pub fn write_parquet(path: &Path, rows: &[Row]) -> Result<(), DatasetError> {
    let malformed = |message: String| DatasetError::Malformed {
        path: path.into(),
        line: None,
        message,
        hint: "nothing was written",
    };
    let schema = Arc::new(schema());
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns(rows)).map_err(|error| malformed(error.to_string()))?;
    // A fixed writer name keeps the bytes the same from one build to the next.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("espalier rows 1".into())
        .build();
    write_atomically(path, |file| {
        let mut writer =
            ArrowWriter::try_new(file, schema, Some(properties)).map_err(|error| malformed(error.to_string()))?;
        writer.write(&batch).map_err(|error| malformed(error.to_string()))?;
        writer.close().map_err(|error| malformed(error.to_string()))?;
        Ok(())
    })
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let text = |pick: fn(&Row) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(pick))) as ArrayRef;
    let number = |pick: fn(&Row) -> u64| Arc::new(UInt64Array::from_iter_values(rows.iter().map(pick))) as ArrayRef;
    let optional =
        |pick: fn(&Row) -> Option<&str>| Arc::new(rows.iter().map(pick).collect::<StringArray>()) as ArrayRef;
    vec![
        text(|row| &row.id),
        text(|row| &row.leaf),
        text(|row| &row.kind),
        number(|row| row.index),
        turns(rows),
        text(|row| &row.slots),
        seed_ids(rows),
        optional(|row| row.document.as_deref()),
        text(|row| &row.flow),
        text(|row| &row.prompt_hash),
        text(|row| &row.model),
        number(|row| row.sampling_seed),
        text(|row| &row.answer),
        text(|row| row.verdict.name()),
        text(|row| &row.reason),
        optional(|row| row.license.as_deref()),
    ]
}

fn turns(rows: &[Row]) -> ArrayRef {
    let mut lists = ListBuilder::new(StructBuilder::from_fields(turn_fields(), 0));
    for row in rows {
        for turn in &row.turns {
            let builder = lists.values();
            for (field, value) in [(0, &turn.role), (1, &turn.content)] {
                if let Some(column) = builder.field_builder::<StringBuilder>(field) {
                    column.append_value(value);
                }
            }
            builder.append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

fn seed_ids(rows: &[Row]) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for id in &row.seed_ids {
            lists.values().append_value(id);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// Reads rows back.
pub fn read_parquet(path: &Path) -> Result<Vec<Row>, DatasetError> {
    let malformed = |message: String| DatasetError::Malformed {
        path: path.into(),
        line: None,
        message,
        hint: "this is not a table of rows, or it is damaged: run `generate` again",
    };
    let file = File::open(path).map_err(DatasetError::io("cannot open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| malformed(error.to_string()))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| malformed(error.to_string()))?;
        let columns = Columns::of(&batch).map_err(|column| malformed(format!("the column `{column}` is missing or of another type")))?;
        for index in 0..batch.num_rows() {
            rows.push(columns.row(index).ok_or_else(|| malformed(format!("row {index} is not readable")))?);
        }
    }
    Ok(rows)
}

/// The columns of one batch, each with its type checked.
struct Columns<'a> {
    text: Vec<&'a StringArray>,
    numbers: [&'a UInt64Array; 2],
    turns: &'a ListArray,
    seeds: &'a ListArray,
}

const TEXT: [&str; 12] =
    ["id", "leaf", "kind", "slots", "document", "flow", "prompt_hash", "model", "answer", "verdict", "reason", "license"];

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, &'static str> {
        fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a T, &'static str> {
            batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>()).ok_or(name)
        }
        Ok(Self {
            text: TEXT.iter().map(|name| column(batch, name)).collect::<Result<_, _>>()?,
            numbers: [column(batch, "index")?, column(batch, "sampling_seed")?],
            turns: column(batch, "turns")?,
            seeds: column(batch, "seed_ids")?,
        })
    }

    fn row(&self, index: usize) -> Option<Row> {
        let value = |column: usize| self.text[column].value(index).to_owned();
        let optional = |column: usize| (!self.text[column].is_null(index)).then(|| value(column));
        let turns = self.turns.value(index);
        let turns = turns.as_any().downcast_ref::<StructArray>()?;
        let field = |name: &str| turns.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
        let (roles, contents) = (field("role")?, field("content")?);
        let seeds = self.seeds.value(index);
        let seeds = seeds.as_any().downcast_ref::<StringArray>()?;
        Some(Row {
            id: value(0),
            leaf: value(1),
            kind: value(2),
            index: self.numbers[0].value(index),
            turns: (0..turns.len())
                .map(|turn| Turn { role: roles.value(turn).into(), content: contents.value(turn).into() })
                .collect(),
            slots: value(3),
            seed_ids: (0..seeds.len()).map(|seed| seeds.value(seed).to_owned()).collect(),
            document: optional(4),
            flow: value(5),
            prompt_hash: value(6),
            model: value(7),
            sampling_seed: self.numbers[1].value(index),
            answer: value(8),
            verdict: Verdict::parse(self.text[9].value(index))?,
            reason: value(10),
            license: optional(11),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::example;

    fn rows() -> Vec<Row> {
        let verdict = |index: u64| if index % 3 == 0 { Verdict::Rejected } else { Verdict::Accepted };
        (0..7).map(|index| example("a/b", index, &format!("question {index} é"), verdict(index))).collect()
    }

    #[test]
    fn rows_survive_and_equal_rows_give_equal_bytes() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (one, two) = (folder.path().join("one.parquet"), folder.path().join("two.parquet"));
        write_parquet(&one, &rows())?;
        write_parquet(&two, &rows())?;
        assert_eq!(read_parquet(&one)?, rows());
        assert_eq!(std::fs::read(&one)?, std::fs::read(&two)?);
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 2, "no temporary file is left");
        write_parquet(&one, &[])?;
        assert_eq!(read_parquet(&one)?, []);
        Ok(())
    }

    #[test]
    fn a_cut_or_foreign_file_is_refused_with_its_name() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("rows.parquet");
        write_parquet(&path, &rows())?;
        let bytes = std::fs::read(&path)?;
        for cut in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut])?;
            let error = read_parquet(&path).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("rows.parquet") && error.contains("hint"), "{error}");
        }
        Ok(())
    }
}
