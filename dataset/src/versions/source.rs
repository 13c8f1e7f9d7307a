//! Rows where they lie: a table, or a version of a data set.

use std::path::{Path, PathBuf};

use super::{Version, Versions};
use crate::error::DatasetError;
use crate::formats::Problem;
use crate::row::Row;
use crate::table::RowReader;

/// Rows that can be read any number of times.
#[derive(Clone, Debug)]
pub struct RowSource {
    files: Vec<PathBuf>,
    version: Option<Version>,
}

impl RowSource {
    /// Finds the rows under a path: a table, the folder of a data set (its newest version, or the one that is asked for),
    /// or a folder with `rows.parquet`.
    ///
    /// # Errors
    /// When there is nothing of the kind, or no such version.
    pub fn find(path: &Path, version: Option<u32>) -> Result<Self, DatasetError> {
        let refuse = |what: String| DatasetError::Problem(Problem { path: path.to_path_buf(), line: None, what });
        if Versions::exist(path) {
            let versions = Versions::new(path);
            let version = versions.read(version)?;
            let files = version.parts.iter().map(|part| versions.part_file(part)).collect();
            return Ok(Self { files, version: Some(version) });
        }
        if version.is_some() {
            return Err(refuse("this is not a data set with versions; leave --version away".to_owned()));
        }
        if path.is_dir() {
            let table = path.join("rows.parquet");
            if !table.exists() {
                return Err(refuse("the folder holds neither versions/ nor rows.parquet; name a table".to_owned()));
            }
            return Ok(Self { files: vec![table], version: None });
        }
        Ok(Self { files: vec![path.to_path_buf()], version: None })
    }

    /// The version that is read, where it is one.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// The rows, one after the other.
    pub fn rows(&self) -> Rows {
        Rows { files: self.files.clone().into_iter(), open: None }
    }
}

/// The rows of some tables, read as they are asked for.
#[derive(Debug)]
pub struct Rows {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<RowReader>,
}

impl Iterator for Rows {
    type Item = Result<Row, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.open.as_mut().and_then(Iterator::next) {
                return Some(row);
            }
            match RowReader::open(&self.files.next()?) {
                Ok(reader) => self.open = Some(reader),
                Err(error) => {
                    self.open = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
