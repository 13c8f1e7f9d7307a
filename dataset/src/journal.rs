//! Finished rows (or other records), one JSON object a line, appended as they come: what a resumed run starts from.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::DatasetError;
use crate::row::Row;

/// An append-only file of rows that survives a kill at any moment: a torn last line is dropped when it is opened again.
#[derive(Debug)]
pub struct Journal<T = Row> {
    path: PathBuf,
    file: File,
    rows: Vec<T>,
}

impl<T: Serialize + DeserializeOwned + Clone> Journal<T> {
    /// Opens or creates a journal, reads its rows and cuts off a last line that was not finished.
    ///
    /// # Errors
    /// When the file cannot be opened or cut, or when a finished line is not a row: then it is not a journal of ours, or
    /// somebody changed it.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(DatasetError::file("create the folder", folder))?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(DatasetError::file("open", path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(DatasetError::file("read", path))?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |index| index + 1);
        let mut rows = Vec::new();
        for (index, line) in bytes[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            rows.push(serde_json::from_slice(line).map_err(|error| DatasetError::Line {
                path: path.to_path_buf(),
                line: index + 1,
                reason: format!("this is not a row of a journal: {error} (delete the file to generate from the start)"),
            })?);
        }
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(DatasetError::file("write", path))?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(DatasetError::file("read", path))?;
        Ok(Self { path: path.to_path_buf(), file, rows })
    }

    /// All rows, those read back first.
    pub fn rows(&self) -> &[T] {
        &self.rows
    }

    /// Adds a row; when this returns, the row is with the operating system and a kill of the process cannot lose it.
    ///
    /// # Errors
    /// When the file cannot be written (a full disk).
    pub fn append(&mut self, row: &T) -> Result<(), DatasetError> {
        let mut line = serde_json::to_vec(row).map_err(|error| DatasetError::Line {
            path: self.path.clone(),
            line: self.rows.len() + 1,
            reason: error.to_string(),
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(DatasetError::file("write", &self.path))?;
        self.rows.push(row.clone());
        Ok(())
    }

    /// Forces all rows to the disk, against a loss of power.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<(), DatasetError> {
        self.file.sync_data().map_err(DatasetError::file("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: u64) -> Row {
        Row { id: format!("{index:016x}"), index, answer: "line\nbreak".into(), ..Row::default() }
    }

    #[test]
    fn survives_a_cut_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(&row(0)).unwrap();
        let first = std::fs::metadata(&path).unwrap().len() as usize;
        journal.append(&row(1)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let bytes = std::fs::read(&path).unwrap();
        for length in first..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.rows(), [row(0)], "cut at {length}");
            journal.append(&row(1)).unwrap();
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_foreign_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.journal");
        std::fs::write(&path, "{\"a\": 1}\n").unwrap();
        let error = Journal::<Row>::open(&path).unwrap_err().to_string();
        assert!(error.contains("rows.journal:1: "), "{error}");
    }
}
