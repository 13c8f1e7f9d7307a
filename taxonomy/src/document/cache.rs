//! Extracted texts by what their files hold, so that a document is read once.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{ExtractError, Extracted, Limits, READER_VERSION, extract, extract_bytes, read};
use crate::hash::hexadecimal;

/// A folder of extracted texts. An entry's name is made of the file's own name, its bytes and the version of the readers, so
/// a change of any of them is another entry; entries that are damaged are made anew.
#[derive(Clone, Debug)]
pub struct ExtractCache {
    folder: PathBuf,
}

/// The cache of this process, where it has one.
static OF_PROCESS: OnceLock<ExtractCache> = OnceLock::new();

/// From here on this process keeps extracted texts in a folder, and finds those of earlier ones there. The first call counts.
pub fn keep_texts_in(folder: impl Into<PathBuf>) {
    let _ = OF_PROCESS.set(ExtractCache::new(folder));
}

/// [`extract`](super::extract), or what it gave before where this process keeps texts ([`keep_texts_in`]).
///
/// # Errors
/// As [`extract`](super::extract).
pub fn extract_once(path: &Path, limits: &Limits) -> Result<Extracted, ExtractError> {
    match OF_PROCESS.get() {
        Some(cache) => cache.extract(path, limits),
        None => extract(path, limits),
    }
}

/// What stands in an entry's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Hexadecimal sha256 of the text.
    sha256: String,
    extracted: Extracted,
}

impl ExtractCache {
    /// A cache in this folder, which is made with the first entry.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// [`extract`](super::extract), or what it gave before for the same file. A folder that cannot be written to costs time
    /// and nothing else.
    ///
    /// # Errors
    /// As [`extract`](super::extract); errors are not kept.
    pub fn extract(&self, path: &Path, limits: &Limits) -> Result<Extracted, ExtractError> {
        let bytes = read(path, limits)?;
        let file = self.folder.join(format!("{}.json", key(path, &bytes)));
        if let Some(extracted) = entry(&file).filter(|extracted| extracted.text.len() <= limits.text_bytes) {
            return Ok(extracted);
        }
        let extracted = extract_bytes(path, &bytes, limits)?;
        // Nothing hangs on the entry: without it the next reading takes as long as this one.
        let _ = self.keep(&file, &extracted);
        Ok(extracted)
    }

    fn keep(&self, file: &Path, extracted: &Extracted) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let entry = Entry { sha256: sha256(extracted.text.as_bytes()), extracted: extracted.clone() };
        let mut temporary = NamedTempFile::new_in(&self.folder)?;
        temporary.write_all(serde_json::to_string(&entry)?.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(file)?;
        Ok(())
    }
}

/// An entry that is whole.
fn entry(file: &Path) -> Option<Extracted> {
    let entry: Entry = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (entry.sha256 == sha256(entry.extracted.text.as_bytes())).then_some(entry.extracted)
}

/// The name decides among forms of text, and stands in the heading of source code.
fn key(path: &Path, bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(READER_VERSION.to_le_bytes());
    hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash.update([0]);
    hash.update(bytes);
    hexadecimal(&hash.finalize())
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_extracted_once_and_a_damaged_entry_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pond.html");
        fs::write(&path, "<html><h1>Pond</h1>").unwrap();
        let cache = ExtractCache::new(folder.path().join("cache"));
        let limits = Limits::default();
        let first = cache.extract(&path, &limits).unwrap();
        assert_eq!(first.text, "# Pond");
        let file = fs::read_dir(folder.path().join("cache")).unwrap().next().unwrap().unwrap().path();
        let entry = fs::read_to_string(&file).unwrap();
        // An entry that is whole is believed: this one shows that it is read.
        let other = Entry { sha256: sha256(b"other"), extracted: Extracted { text: "other".into(), ..first.clone() } };
        fs::write(&file, serde_json::to_string(&other).unwrap()).unwrap();
        assert_eq!(cache.extract(&path, &limits).unwrap().text, "other");
        for damaged in [entry.replace("Pond", "Pool"), entry[..entry.len() / 2].to_owned(), String::new()] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(cache.extract(&path, &limits).unwrap(), first);
            assert_eq!(fs::read_to_string(&file).unwrap(), entry);
        }
        fs::write(&path, "<html><h1>Lake</h1>").unwrap();
        assert_eq!(cache.extract(&path, &limits).unwrap().text, "# Lake");
        let nowhere = ExtractCache::new(path.join("no folder"));
        assert_eq!(nowhere.extract(&path, &limits).unwrap().text, "# Lake");
    }
}
