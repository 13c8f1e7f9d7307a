//! The rows of any Parquet file as JSON objects: for tables whose columns are not known beforehand.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use crate::error::DatasetError;

/// Reads every row of a Parquet file: texts, numbers, truth values, and lists and structures of them. The keys of an object stand
/// in the order of the columns; what is absent is `null`.
///
/// # Errors
/// A file that cannot be read or is not Parquet; a column of another type (bytes, dates, pictures).
pub fn read_parquet_values(path: &Path) -> Result<Vec<Value>, DatasetError> {
    let refuse = |reason: &dyn std::fmt::Display| DatasetError::whole(path, &format!("it cannot be read: {reason}"));
    let file = File::open(path).map_err(DatasetError::file("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| refuse(&error))?;
    let mut rows = Vec::new();
    for batch in builder.build().map_err(|error| refuse(&error))? {
        let batch = batch.map_err(|error| refuse(&error))?;
        let table = StructArray::from(batch);
        for row in 0..table.len() {
            rows.push(structure(&table, row).map_err(|reason| refuse(&reason))?);
        }
    }
    Ok(rows)
}

fn structure(table: &StructArray, row: usize) -> Result<Value, String> {
    let mut object = Map::new();
    for (field, column) in table.fields().iter().zip(table.columns()) {
        let value = value(column, row)
            .map_err(|kind| format!("the column {:?} holds {kind}, not text or numbers", field.name()))?;
        object.insert(field.name().clone(), value);
    }
    Ok(Value::Object(object))
}

/// One value of a column, or the name of its type where there is no JSON for it.
fn value(column: &ArrayRef, row: usize) -> Result<Value, String> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let list = |items: ArrayRef| -> Result<Value, String> { (0..items.len()).map(|at| value(&items, at)).collect() };
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::List(_) => list(column.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row))?,
        DataType::Struct(_) => structure(column.as_struct(), row)?,
        other => return Err(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;

    #[test]
    fn a_table_as_objects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let row = Row { id: "0a".into(), index: 3, answer: "yes".into(), ..Row::default() };
        crate::write_parquet(&path, &[row]).unwrap();
        let rows = read_parquet_values(&path).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((&rows[0]["id"], &rows[0]["answer"]), (&"0a".into(), &"yes".into()));
        std::fs::write(&path, "no table").unwrap();
        assert!(read_parquet_values(&path).unwrap_err().to_string().contains("rows.parquet"));
    }
}
