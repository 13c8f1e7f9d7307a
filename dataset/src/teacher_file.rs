//! What a teacher thinks of training rows: its most probable tokens at each learned token, as a Parquet table.
//!
//! One line a row: the row's hash, the places of its learned tokens, and for each place `top_k` tokens with the natural
//! logarithms of their probabilities, best first. What is left to one is the probability of all other tokens together.
//! Logarithms are kept in 32 bits: this rest is a difference from one, and half precision would leave nothing of it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Builder, ListArray, ListBuilder, PrimitiveArray, RecordBatch, StringArray, UInt32Builder,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float32Type, Schema, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::atomic::write_atomically;
use crate::error::DatasetError;
use crate::table::{CREATED_BY, typed};

/// The key of [`TeacherOrigin`] in the file's metadata.
const ORIGIN: &str = "espalier.teacher";

/// Lines that are in memory as a table at one time.
const LINES_AT_ONCE: usize = 256;

/// Where a file's probabilities come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeacherOrigin {
    /// Content hash of the teacher, with its adapter and precision.
    pub teacher: String,
    /// Hash of what the teacher's token ids stand for.
    pub vocabulary: String,
    /// Tokens a place.
    pub top_k: usize,
}

/// What a teacher thinks of one training row.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherRow {
    /// Hash of the row's tokens and of which are learned.
    pub row: String,
    /// Places of the learned tokens in the row.
    pub positions: Vec<u32>,
    /// `top_k` tokens for each of them, one place after another.
    pub tokens: Vec<u32>,
    /// The natural logarithms of their probabilities.
    pub log_probabilities: Vec<f32>,
}

impl TeacherRow {
    /// Whether its parts fit together and are probabilities.
    fn check(&self, top_k: usize) -> Result<(), String> {
        let entries = self.positions.len() * top_k;
        if top_k == 0 {
            return Err("its table keeps no token at all".to_owned());
        }
        if self.tokens.len() != entries || self.log_probabilities.len() != entries {
            return Err(format!(
                "{} places have {} tokens and {} probabilities where there should be {top_k} each",
                self.positions.len(),
                self.tokens.len(),
                self.log_probabilities.len()
            ));
        }
        let places = self.positions.iter().zip(self.tokens.chunks(top_k)).zip(self.log_probabilities.chunks(top_k));
        for ((position, tokens), values) in places {
            let total: f64 = values.iter().map(|value| f64::from(*value).exp()).sum();
            if !values.iter().all(|value| *value <= 0.0) || total > 1.0 + 1e-4 {
                return Err(format!("what stands at place {position} are no probabilities"));
            }
            if (1..tokens.len()).any(|at| tokens[..at].contains(&tokens[at])) {
                return Err(format!("a token stands twice at place {position}"));
            }
        }
        Ok(())
    }
}

fn schema() -> Schema {
    let list =
        |name: &str, item: DataType| Field::new(name, DataType::List(Arc::new(Field::new("item", item, false))), false);
    Schema::new(vec![
        Field::new("row", DataType::Utf8, false),
        list("positions", DataType::UInt32),
        list("tokens", DataType::UInt32),
        list("log_probabilities", DataType::Float32),
    ])
}

fn to_batch(rows: &[TeacherRow]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let whole = |field: fn(&TeacherRow) -> &[u32]| -> ArrayRef {
        let item = Field::new("item", DataType::UInt32, false);
        let mut list = ListBuilder::new(UInt32Builder::new()).with_field(item);
        for row in rows {
            list.values().append_slice(field(row));
            list.append(true);
        }
        Arc::new(list.finish())
    };
    let item = Field::new("item", DataType::Float32, false);
    let mut log_probabilities = ListBuilder::new(Float32Builder::new()).with_field(item);
    for row in rows {
        log_probabilities.values().append_slice(&row.log_probabilities);
        log_probabilities.append(true);
    }
    RecordBatch::try_new(
        Arc::new(schema()),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.row))),
            whole(|row| &row.positions),
            whole(|row| &row.tokens),
            Arc::new(log_probabilities.finish()),
        ],
    )
}

/// Writes what a teacher thinks of rows, atomically. Equal rows give equal bytes.
///
/// # Errors
/// Rows whose parts do not fit together, a file that cannot be written.
pub fn write_teacher(path: &Path, origin: &TeacherOrigin, rows: &[TeacherRow]) -> Result<(), DatasetError> {
    for row in rows {
        row.check(origin.top_k).map_err(|reason| DatasetError::table(path, &format!("row {}: {reason}", row.row)))?;
    }
    let metadata = KeyValue::new(ORIGIN.to_owned(), serde_json::to_string(origin).ok());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(CREATED_BY.to_owned())
        .set_key_value_metadata(Some(vec![metadata]))
        .build();
    write_atomically(path, |out| {
        let mut writer = ArrowWriter::try_new(out, Arc::new(schema()), Some(properties))?;
        for rows in rows.chunks(LINES_AT_ONCE) {
            writer.write(&to_batch(rows).map_err(std::io::Error::other)?)?;
        }
        writer.close()?;
        Ok(())
    })
    .map_err(DatasetError::file("write", path))
}

/// Reads such a file.
///
/// # Errors
/// A file that cannot be opened, is damaged, or is another kind of table.
pub fn read_teacher(path: &Path) -> Result<(TeacherOrigin, Vec<TeacherRow>), DatasetError> {
    let file = File::open(path).map_err(DatasetError::file("read", path))?;
    let refuse = |error: parquet::errors::ParquetError| DatasetError::table(path, &error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(refuse)?;
    let pairs = builder.metadata().file_metadata().key_value_metadata();
    let origin = pairs.into_iter().flatten().find(|pair| pair.key == ORIGIN).and_then(|pair| pair.value.as_deref());
    let origin = origin.ok_or_else(|| {
        DatasetError::table(path, &"it does not say which teacher it is from, so it is no table of `pipeline teach`")
    })?;
    let origin: TeacherOrigin = serde_json::from_str(origin).map_err(|error| DatasetError::table(path, &error))?;
    let mut rows = Vec::new();
    for batch in builder.build().map_err(refuse)? {
        let batch = batch.map_err(|error| DatasetError::table(path, &error))?;
        from_batch(&batch, origin.top_k, &mut rows).map_err(|reason| DatasetError::table(path, &reason))?;
    }
    Ok((origin, rows))
}

fn from_batch(batch: &RecordBatch, top_k: usize, rows: &mut Vec<TeacherRow>) -> Result<(), String> {
    let hashes = typed::<StringArray>(batch, "row")?;
    let [positions, tokens, log_probabilities] =
        ["positions", "tokens", "log_probabilities"].map(|name| typed::<ListArray>(batch, name));
    let (positions, tokens, log_probabilities) = (positions?, tokens?, log_probabilities?);
    for at in 0..batch.num_rows() {
        let row = TeacherRow {
            row: hashes.value(at).to_owned(),
            positions: items::<UInt32Type>(positions, at)?,
            tokens: items::<UInt32Type>(tokens, at)?,
            log_probabilities: items::<Float32Type>(log_probabilities, at)?,
        };
        row.check(top_k).map_err(|reason| format!("row {}: {reason}", row.row))?;
        rows.push(row);
    }
    Ok(())
}

fn items<T: ArrowPrimitiveType>(list: &ListArray, at: usize) -> Result<Vec<T::Native>, String> {
    let values = list.value(at);
    let values = values.as_any().downcast_ref::<PrimitiveArray<T>>();
    values.map(|values| values.values().to_vec()).ok_or_else(|| "a list has items of another type".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> TeacherOrigin {
        TeacherOrigin { teacher: "abc-f32".into(), vocabulary: "def".into(), top_k: 2 }
    }

    fn row(name: &str, places: u32) -> TeacherRow {
        TeacherRow {
            row: name.into(),
            positions: (5..5 + places).collect(),
            tokens: (0..2 * places).collect(),
            log_probabilities: (0..places).flat_map(|_| [-0.5, -1.25]).collect(),
        }
    }

    #[test]
    fn rows_come_back_and_bytes_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
        let rows: Vec<TeacherRow> = (0..600).map(|index| row(&format!("{index:04}"), index % 7)).collect();
        write_teacher(&a, &origin(), &rows).unwrap();
        write_teacher(&b, &origin(), &rows).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        assert_eq!(read_teacher(&a).unwrap(), (origin(), rows));
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let refused = |change: fn(&mut TeacherRow)| {
            let mut row = row("r", 2);
            change(&mut row);
            write_teacher(&path, &origin(), &[row]).unwrap_err().to_string()
        };
        assert!(refused(|row| row.tokens.truncate(3)).contains("2 each"));
        assert!(refused(|row| row.log_probabilities[3] = f32::NAN).contains("no probabilities"));
        assert!(refused(|row| row.log_probabilities[2] = 0.0).contains("no probabilities"));
        assert!(refused(|row| row.tokens[3] = 2).contains("twice at place 6"));
        crate::write_parquet(&path, &[crate::Row::default()]).unwrap();
        assert!(read_teacher(&path).unwrap_err().to_string().contains("no table of `pipeline teach`"));
    }
}
