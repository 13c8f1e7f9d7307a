//! Versions of a data set: a folder to which rows are only ever added, and of which every state can be read again.
//!
//! ```text
//! rows/
//!   parts/SHA256.parquet      some rows of one leaf, named by the hash of the file
//!   versions/1.json           which parts, of which tree and engines, and the funnel
//! ```
//! A leaf whose rows are the same has the same part in every version, so that a version costs what changed. A version's
//! file is written last and whole: a kill before leaves the versions as they were, with parts that the next writer finds.

mod difference;
mod source;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use difference::{Change, Difference, difference};
pub use source::{RowSource, Rows};

use crate::atomic::{rename_durably, write_atomically};
use crate::error::DatasetError;
use crate::formats::Problem;
use crate::funnel::{Funnel, FunnelLine};
use crate::row::Row;
use crate::table::RowWriter;

/// Most rows of a part.
const PART_ROWS: u64 = 65_536;

/// What a version was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Hash of the tree of leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taxonomy: Option<String>,
    /// Teachers, judges and embedders, each with its hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<String>,
    /// Flows with their versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<String>,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Hexadecimal SHA-256 of the file, which is its name.
    pub hash: String,
    /// The leaf of its rows.
    pub leaf: String,
    /// How many.
    pub rows: u64,
}

/// A state of the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Its number, from 1.
    pub version: u32,
    /// Its rows, in this order.
    pub parts: Vec<Part>,
    /// How many rows.
    pub rows: u64,
    /// What it was made of.
    #[serde(default)]
    pub origin: Origin,
    /// What became of the rows of each leaf.
    pub funnel: Vec<FunnelLine>,
}

/// The folder of a data set. One process may add to it at a time; any number may read.
#[derive(Clone, Debug)]
pub struct Versions {
    folder: PathBuf,
}

impl Versions {
    /// The data set in this folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Whether the folder holds versions.
    pub fn exist(folder: &Path) -> bool {
        folder.join("versions").is_dir()
    }

    /// Numbers of the versions, ascending.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn numbers(&self) -> Result<Vec<u32>, DatasetError> {
        let folder = self.folder.join("versions");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(DatasetError::file("read", &folder))? {
            let name = entry.map_err(DatasetError::file("read", &folder))?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A version: the one of this number, or the newest.
    ///
    /// # Errors
    /// When there is none, or its file is damaged.
    pub fn read(&self, number: Option<u32>) -> Result<Version, DatasetError> {
        let numbers = self.numbers()?;
        let refuse = |path: PathBuf, what: String| DatasetError::Problem(Problem { path, line: None, what });
        let Some(number) = number.or(numbers.last().copied()) else {
            return Err(refuse(self.folder.clone(), "the data set has no version yet; generate one".to_owned()));
        };
        if !numbers.contains(&number) {
            let known: Vec<String> = numbers.iter().map(u32::to_string).collect();
            let what = format!("there is no version {number}; there are {}", known.join(", "));
            return Err(refuse(self.folder.clone(), what));
        }
        let path = self.version_file(number);
        let text = std::fs::read_to_string(&path).map_err(DatasetError::file("read", &path))?;
        let version: Version = serde_json::from_str(&text)
            .map_err(|error| refuse(path.clone(), format!("this is not a version of a data set: {error}")))?;
        // The names become paths: a version from elsewhere must not name other files.
        match version.parts.iter().find(|part| !is_hash(&part.hash)) {
            Some(part) => Err(refuse(path, format!("{:?} is not the hash of a part", part.hash))),
            None => Ok(version),
        }
    }

    /// The file of a part.
    pub fn part_file(&self, part: &Part) -> PathBuf {
        self.folder.join("parts").join(format!("{}.parquet", part.hash))
    }

    /// Reads every part of a version through and compares its hash.
    ///
    /// # Errors
    /// When a part is missing or was changed.
    pub fn verify(&self, version: &Version) -> Result<(), DatasetError> {
        for part in &version.parts {
            let path = self.part_file(part);
            if hash_file(&path)? != part.hash {
                let what =
                    "the file was changed since it was written; take it from a copy, or generate again".to_owned();
                return Err(DatasetError::Problem(Problem { path, line: None, what }));
            }
        }
        Ok(())
    }

    /// Adds a version with these rows, those of a leaf beside each other, and returns it. Rows and origin that are those
    /// of the newest version make no other one.
    ///
    /// # Errors
    /// What a row's reading says, and when a file cannot be written.
    pub fn add(
        &self,
        rows: impl IntoIterator<Item = Result<Row, DatasetError>>,
        origin: Origin,
    ) -> Result<Version, DatasetError> {
        let mut funnel = Funnel::default();
        let mut parts: Vec<Part> = Vec::new();
        let mut open: Option<(String, RowWriter)> = None;
        for row in rows {
            let row = row?;
            funnel.add(&row);
            let ends = |(leaf, writer): &(String, RowWriter)| *leaf != row.leaf || writer.rows() >= PART_ROWS;
            if open.as_ref().is_some_and(ends) {
                parts.extend(open.take().map(|part| self.end_part(part)).transpose()?);
            }
            let (_, writer) = match &mut open {
                Some(open) => open,
                None => open.insert((row.leaf.clone(), RowWriter::create(&self.incoming())?)),
            };
            writer.write(row)?;
        }
        parts.extend(open.take().map(|part| self.end_part(part)).transpose()?);
        let number = self.numbers()?.last().copied();
        let version = Version {
            version: number.unwrap_or_default() + 1,
            rows: parts.iter().map(|part| part.rows).sum(),
            parts,
            origin,
            funnel: funnel.lines(),
        };
        if number.is_some() {
            let newest = self.read(number)?;
            if newest.parts == version.parts && newest.origin == version.origin {
                return Ok(newest);
            }
        }
        let path = self.version_file(version.version);
        write_atomically(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, &version)?;
            std::io::Write::write_all(out, b"\n")
        })
        .map_err(DatasetError::file("write", &path))?;
        Ok(version)
    }

    fn version_file(&self, number: u32) -> PathBuf {
        self.folder.join("versions").join(format!("{number}.json"))
    }

    /// Where a part lies until its hash is known.
    fn incoming(&self) -> PathBuf {
        self.folder.join("parts/incoming.parquet")
    }

    fn end_part(&self, (leaf, writer): (String, RowWriter)) -> Result<Part, DatasetError> {
        let rows = writer.rows();
        writer.finish()?;
        let incoming = self.incoming();
        let part = Part { hash: hash_file(&incoming)?, leaf, rows };
        let path = self.part_file(&part);
        rename_durably(&incoming, &path).map_err(DatasetError::file("write", &path))?;
        Ok(part)
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hash_file(path: &Path) -> Result<String, DatasetError> {
    let mut file = File::open(path).map_err(DatasetError::file("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(DatasetError::file("read", path))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}
