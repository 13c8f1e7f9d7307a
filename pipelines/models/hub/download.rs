//! One file of a repository: fetched, gone on with after a break, and checked.

use super::client::{HubClient, Trouble, pause};
use super::listing::{ContentHash, RepositoryFile};
use crate::content::hex;
use crate::outcome::Failure;
use anyhow::{Context, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use ureq::http::StatusCode;

/// Times in a row that a connection may break without a byte of progress.
const BREAKS: u32 = 5;

/// What stopped a download.
#[derive(Debug)]
pub enum DownloadError {
    /// The hub or the way to it.
    Hub(Trouble),
    /// Anything else, in words.
    Other(anyhow::Error),
}

impl From<Trouble> for DownloadError {
    fn from(trouble: Trouble) -> Self {
        Self::Hub(trouble)
    }
}

impl From<anyhow::Error> for DownloadError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for DownloadError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.into())
    }
}

/// The SHA-256 of the content so far, and the hash that the hub knows.
struct Hashes {
    sha256: Sha256,
    git: Sha1,
    bytes: u64,
}

impl Hashes {
    fn new(file: &RepositoryFile) -> Self {
        let mut git = Sha1::new();
        git.update(format!("blob {}\0", file.bytes));
        Self { sha256: Sha256::new(), git, bytes: 0 }
    }

    fn update(&mut self, file: &RepositoryFile, bytes: &[u8]) {
        self.sha256.update(bytes);
        if matches!(file.hash, ContentHash::GitBlob(_)) {
            self.git.update(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    /// Lower-case hexadecimal: of the content, and of what the hub states.
    fn finish(self, file: &RepositoryFile) -> (String, String) {
        let sha256 = hex(&self.sha256.finalize());
        let stated = match file.hash {
            ContentHash::Sha256(_) => sha256.clone(),
            ContentHash::GitBlob(_) => hex(&self.git.finalize()),
        };
        (sha256, stated)
    }
}

/// Where a download stands: the bytes of it that this process has seen.
pub type Progress<'a> = dyn FnMut(u64) + 'a;

/// Takes a file from the shared cache of other tools, if it is there whole. Gives its SHA-256.
pub fn take_shared(file: &RepositoryFile, shared: &Path, part: &Path, progress: &mut Progress<'_>) -> Option<String> {
    let mut source = File::open(shared).ok()?;
    let mut hashes = Hashes::new(file);
    read_into(&mut source, file, &mut hashes, progress).ok()?;
    let bytes = hashes.bytes;
    let (sha256, stated) = hashes.finish(file);
    if bytes != file.bytes || stated != file.hash.hex() {
        return None;
    }
    let _ = std::fs::remove_file(part);
    // A second name for the same content costs no space; another disk asks for a copy.
    let whole = std::fs::canonicalize(shared).ok()?;
    std::fs::hard_link(&whole, part).or_else(|_| std::fs::copy(&whole, part).map(|_| ())).ok()?;
    Some(sha256)
}

/// Fetches a file of `address` (a path of the hub) to `part`, which an earlier attempt may have begun. Gives its SHA-256.
///
/// `part` must be a name that stands for this very content. It stays after an error, so that the next attempt goes on.
pub fn fetch(
    client: &HubClient<'_>,
    address: &str,
    file: &RepositoryFile,
    part: &Path,
    progress: &mut Progress<'_>,
) -> Result<String, DownloadError> {
    let mut target = open_alone(part)?;
    let mut begun = target.metadata().with_context(|| format!("cannot read {}", part.display()))?.len();
    loop {
        let mut hashes = Hashes::new(file);
        if begun > file.bytes {
            begun = 0;
        }
        target.set_len(begun).with_context(|| format!("cannot write {}", part.display()))?;
        target.seek(SeekFrom::Start(0)).with_context(|| format!("cannot read {}", part.display()))?;
        read_into(&mut target, file, &mut hashes, progress)
            .with_context(|| format!("cannot read {}", part.display()))?;
        let resumed = hashes.bytes > 0;
        receive(client, address, file, &mut target, &mut hashes, part, progress)?;
        target.sync_all().with_context(|| format!("cannot write {}", part.display()))?;
        let (sha256, stated) = hashes.finish(file);
        if stated == file.hash.hex() {
            return Ok(sha256);
        }
        // What an earlier attempt left may be what is damaged.
        begun = 0;
        if !resumed {
            let _ = std::fs::remove_file(part);
            let message = format!("{} arrived with the hash {stated}, the hub states {}", file.path, file.hash.hex());
            return Err(Failure::try_again(message)
                .hint("what arrived is damaged: nothing of this file was kept; try again, and if it says so again ask who runs the hub or a proxy in front of it")
                .into());
        }
    }
}

/// Receives what is missing, over as many connections as it takes.
fn receive(
    client: &HubClient<'_>,
    address: &str,
    file: &RepositoryFile,
    target: &mut File,
    hashes: &mut Hashes,
    part: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), DownloadError> {
    let cannot_write = || format!("cannot write {} (is the disk full?)", part.display());
    let mut breaks = 0;
    let mut buffer = vec![0_u8; 1 << 18];
    while hashes.bytes < file.bytes {
        let response = client.get(address, hashes.bytes)?;
        let continues = response.status() == StatusCode::PARTIAL_CONTENT
            && begin_of_range(response.headers().get("content-range").and_then(|value| value.to_str().ok()))
                == Some(hashes.bytes);
        if hashes.bytes > 0 && !continues {
            // The server sends the file from its beginning: so do we count.
            *hashes = Hashes::new(file);
            target.set_len(0).with_context(cannot_write)?;
            target.seek(SeekFrom::Start(0)).with_context(cannot_write)?;
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let before = hashes.bytes;
        let broken = loop {
            client.check_stop()?;
            let count = match body.read(&mut buffer) {
                Ok(0) => break None,
                Ok(count) => count,
                Err(error) => break Some(error.to_string()),
            };
            let wanted = (file.bytes - hashes.bytes).min(count as u64) as usize;
            target.write_all(&buffer[..wanted]).with_context(cannot_write)?;
            hashes.update(file, &buffer[..wanted]);
            progress(hashes.bytes);
            if hashes.bytes == file.bytes {
                return Ok(());
            }
        };
        breaks = if hashes.bytes > before { 1 } else { breaks + 1 };
        if breaks >= BREAKS {
            let reason = broken.unwrap_or_else(|| "the connection ends before the file does".into());
            return Err(Trouble::Unreachable { host: client.host(), reason }.into());
        }
        client.wait(pause(breaks))?;
    }
    Ok(())
}

fn read_into(
    source: &mut File,
    file: &RepositoryFile,
    hashes: &mut Hashes,
    progress: &mut Progress<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        hashes.update(file, &buffer[..count]);
        progress(hashes.bytes);
    }
}

/// Opens the part for this process alone.
fn open_alone(part: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part);
    let file = opened.with_context(|| format!("cannot create {}", part.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::try_again("another process is fetching this very file")
            .hint("wait until it is done: this one then finds it in the cache")
            .into()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", part.display())),
    }
}

/// First byte of `bytes 5-9/10`.
fn begin_of_range(header: Option<&str>) -> Option<u64> {
    header?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_small_file_is_that_of_git() {
        // `printf hello | git hash-object --stdin`
        let hash = ContentHash::GitBlob("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0".into());
        let file = RepositoryFile { path: "a".into(), bytes: 5, hash };
        let mut hashes = Hashes::new(&file);
        hashes.update(&file, b"hel");
        hashes.update(&file, b"lo");
        assert_eq!(hashes.finish(&file).1, file.hash.hex());
    }

    #[test]
    fn a_range_says_where_it_begins() {
        assert_eq!(begin_of_range(Some("bytes 5-9/10")), Some(5));
        assert_eq!(begin_of_range(Some("bytes */10")), None);
        assert_eq!(begin_of_range(None), None);
    }
}
