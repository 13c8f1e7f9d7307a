//! Content hashes and atomic writes: what makes a stage's outputs trustworthy after a kill at any instant.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Lower-case hexadecimal of a digest.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file's content.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if count == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&buffer[..count]);
    }
}

/// SHA-256 over a file, or over a folder's relative names and contents in sorted order.
pub fn hash_path(path: &Path) -> Result<String> {
    if path.is_file() {
        return hash_file(path);
    }
    let mut files = Vec::new();
    for file in files_below(path)? {
        let name = file.strip_prefix(path).unwrap_or(&file).to_path_buf();
        files.push((name, hash_file(&file)?));
    }
    Ok(hash_folder(files))
}

/// The hash of a folder from the relative names and hashes of its files.
pub fn hash_folder(mut files: Vec<(PathBuf, String)>) -> String {
    files.sort();
    let mut digest = Sha256::new();
    for (name, hash) in &files {
        digest.update(name.to_string_lossy().as_bytes());
        digest.update([0]);
        digest.update(hash.as_bytes());
    }
    hex(&digest.finalize())
}

/// Bytes of a file, or of all files below a folder.
pub fn length(path: &Path) -> Result<u64> {
    let of_file = |file: &Path| {
        let metadata = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(metadata.len())
    };
    if path.is_dir() { files_below(path)?.iter().map(|file| of_file(file)).sum() } else { of_file(path) }
}

/// Every file below a folder, sorted by path.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file so that a reader sees the old content or the new one, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    espalier_dataset::write_atomically(path, |file| file.write_all(bytes))
        .with_context(|| format!("cannot write {} (is the disk full?)", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_hash_depends_on_names_and_contents() -> Result<()> {
        let folder = tempfile::tempdir()?;
        write_atomically(&folder.path().join("a/one.txt"), b"1")?;
        let first = hash_path(folder.path())?;
        write_atomically(&folder.path().join("a/one.txt"), b"2")?;
        let second = hash_path(folder.path())?;
        fs::rename(folder.path().join("a/one.txt"), folder.path().join("a/two.txt"))?;
        let third = hash_path(folder.path())?;
        assert!(first != second && second != third);
        assert!(files_below(folder.path())?.iter().all(|file| !file.ends_with(".part")));
        Ok(())
    }

    #[test]
    fn the_empty_hash_is_the_published_one() {
        assert_eq!(hash_bytes(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
