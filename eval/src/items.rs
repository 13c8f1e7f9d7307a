//! Every item of every model as a Parquet table: one row an item and model, for whatever reads tables.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray,
    UInt32Array,
};
use arrow::datatypes::{Float64Type, UInt32Type};
use arrow::error::ArrowError;
use espalier_dataset::write_atomically;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::compare::ScoreSheet;
use crate::error::EvalError;
use crate::evaluation::Evaluation;

/// One item as one model answered it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemRow {
    /// The model.
    pub model: String,
    /// The task.
    pub task: String,
    /// The item within it.
    pub item: String,
    /// Its place in the task, from 0.
    pub index: u32,
    /// Hash of the question as it stood in its source.
    pub doc_hash: String,
    /// Hash of what the model read.
    pub prompt_hash: String,
    /// Hash of the right answer.
    pub target_hash: String,
    /// Hash of the text that the question is about, where it has one.
    pub cluster: Option<String>,
    /// What the model read.
    pub prompt: String,
    /// The right answer.
    pub target: String,
    /// What the model said.
    pub response: String,
    /// The part of it that was compared.
    pub extracted: String,
    /// Log-probabilities of the choices.
    pub logprobs: Vec<f64>,
    /// Whether it is right.
    pub correct: bool,
    /// The score.
    pub score: f64,
    /// Why there is no response.
    pub error: Option<String>,
}

/// The rows of evaluations, in their order.
pub fn item_rows<'a>(evaluations: impl IntoIterator<Item = &'a Evaluation>) -> Vec<ItemRow> {
    let rows = |evaluation: &'a Evaluation| {
        let sheet = ScoreSheet::from(evaluation);
        evaluation.items.iter().zip(sheet.items).map(|(item, scored)| ItemRow {
            model: evaluation.model.clone(),
            task: evaluation.task.clone(),
            item: item.id.clone(),
            index: item.index as u32,
            doc_hash: item.doc_hash.clone(),
            prompt_hash: item.prompt_hash.clone(),
            target_hash: item.target_hash.clone(),
            cluster: scored.cluster,
            prompt: item.prompt.clone(),
            target: item.target.clone(),
            response: item.response.clone(),
            extracted: item.extracted.clone(),
            logprobs: item.logprobs.clone(),
            correct: item.correct,
            score: item.score,
            error: item.error.clone(),
        })
    };
    evaluations.into_iter().flat_map(rows).collect()
}

/// Writes rows as a snappy-compressed Parquet table, which has its name only when it is whole. Equal rows give equal bytes.
pub fn write_items(path: &Path, rows: &[ItemRow]) -> Result<(), EvalError> {
    let batch = batch(rows).map_err(|error| EvalError::results(path, error.to_string()))?;
    // The writer's version would make equal rows unequal bytes.
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let properties = properties.set_created_by("espalier".to_owned()).build();
    write_atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(std::io::Error::from)?;
        writer.write(&batch).map_err(std::io::Error::from)?;
        writer.close().map_err(std::io::Error::from)?;
        Ok(())
    })
    .map_err(EvalError::file(path, "write it"))
}

fn batch(rows: &[ItemRow]) -> Result<RecordBatch, ArrowError> {
    let text =
        |value: fn(&ItemRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(value))) };
    let optional =
        |value: fn(&ItemRow) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<StringArray>()) };
    let mut logprobs = ListBuilder::new(Float64Builder::new());
    for row in rows {
        logprobs.values().append_slice(&row.logprobs);
        logprobs.append(true);
    }
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("model", text(|row| &row.model), false),
        ("task", text(|row| &row.task), false),
        ("item", text(|row| &row.item), false),
        ("index", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.index))), false),
        ("doc_hash", text(|row| &row.doc_hash), false),
        ("prompt_hash", text(|row| &row.prompt_hash), false),
        ("target_hash", text(|row| &row.target_hash), false),
        ("cluster", optional(|row| row.cluster.as_deref()), true),
        ("prompt", text(|row| &row.prompt), false),
        ("target", text(|row| &row.target), false),
        ("response", text(|row| &row.response), false),
        ("extracted", text(|row| &row.extracted), false),
        ("logprobs", Arc::new(logprobs.finish()), false),
        ("correct", Arc::new(rows.iter().map(|row| Some(row.correct)).collect::<BooleanArray>()), false),
        ("score", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.score))), false),
        ("error", optional(|row| row.error.as_deref()), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns)
}

/// Reads what [`write_items`] wrote.
pub fn read_items(path: &Path) -> Result<Vec<ItemRow>, EvalError> {
    let file = File::open(path).map_err(EvalError::file(path, "read it"))?;
    let wrong = |error: &dyn std::fmt::Display| EvalError::results(path, format!("this is no table of items: {error}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
    let mut rows = Vec::new();
    for batch in reader.map_err(|error| wrong(&error))? {
        let batch = batch.map_err(|error| wrong(&error))?;
        rows.extend(rows_of(&batch).ok_or_else(|| wrong(&"a column is missing or of another type"))?);
    }
    Ok(rows)
}

fn rows_of(batch: &RecordBatch) -> Option<Vec<ItemRow>> {
    let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (model, task, item) = (texts("model")?, texts("task")?, texts("item")?);
    let (doc_hash, prompt_hash, target_hash) = (texts("doc_hash")?, texts("prompt_hash")?, texts("target_hash")?);
    let (prompt, target) = (texts("prompt")?, texts("target")?);
    let (response, extracted) = (texts("response")?, texts("extracted")?);
    let (cluster, error) = (texts("cluster")?, texts("error")?);
    let index = batch.column_by_name("index")?.as_primitive_opt::<UInt32Type>()?;
    let score = batch.column_by_name("score")?.as_primitive_opt::<Float64Type>()?;
    let correct = batch.column_by_name("correct")?.as_boolean_opt()?;
    let logprobs = batch.column_by_name("logprobs")?.as_list_opt::<i32>()?;
    let optional = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    let row = |row: usize| {
        Some(ItemRow {
            model: model.value(row).to_owned(),
            task: task.value(row).to_owned(),
            item: item.value(row).to_owned(),
            index: index.value(row),
            doc_hash: doc_hash.value(row).to_owned(),
            prompt_hash: prompt_hash.value(row).to_owned(),
            target_hash: target_hash.value(row).to_owned(),
            cluster: optional(cluster, row),
            prompt: prompt.value(row).to_owned(),
            target: target.value(row).to_owned(),
            response: response.value(row).to_owned(),
            extracted: extracted.value(row).to_owned(),
            logprobs: logprobs.value(row).as_primitive_opt::<Float64Type>()?.values().to_vec(),
            correct: correct.value(row),
            score: score.value(row),
            error: optional(error, row),
        })
    };
    (0..batch.num_rows()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.parquet");
        let right = ItemRow {
            model: "base".into(),
            item: "t#1".into(),
            logprobs: vec![-1.5, -2.25],
            correct: true,
            score: 1.0,
            cluster: Some("c".into()),
            ..ItemRow::default()
        };
        let failed =
            ItemRow { error: Some("no answer".into()), index: 7, prompt: "é?\n".into(), ..ItemRow::default() };
        let rows = [right, failed];
        write_items(&path, &rows).unwrap();
        assert_eq!(read_items(&path).unwrap(), rows);
        let bytes = std::fs::read(&path).unwrap();
        write_items(&path, &rows).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        write_items(&path, &[]).unwrap();
        assert_eq!(read_items(&path).unwrap(), []);
        std::fs::write(&path, "no table").unwrap();
        assert!(read_items(&path).unwrap_err().to_string().contains("this is no table of items"));
    }
}
