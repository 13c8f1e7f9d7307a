//! Rows as a Parquet table: one column a field, lists of structures where a field holds several things.

mod column;
mod read;
mod write;

pub use column::{COLUMNS, Column, row_schema};
pub use read::{RowReader, read_parquet};
pub use write::{RowWriter, write_parquet};

pub(crate) use column::typed;
pub(crate) use write::CREATED_BY;

#[cfg(test)]
mod tests;
