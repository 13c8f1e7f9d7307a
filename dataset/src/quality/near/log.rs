//! Kept rows as entries one after the other, in memory or in a file.
//!
//! A file begins with [`MAGIC`]. An entry is the length of its body, a hash of the body (both u32, little-endian) and the body:
//! either `S` and the name of a source, whose rows follow, or `R`, the length of the row's id, the id and one or two sets of
//! shingles (hash of the numbers, count, hashes). A source that begins again takes the place of what it left before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Fingerprint;
use crate::error::DatasetError;
use crate::quality::shingles::Shingles;
use crate::quality::words::hash_of;

const MAGIC: &[u8] = b"espalier near-duplicates 1\n";
/// Bytes that wait to be written.
const WAITING: usize = 1 << 18;
/// A longer entry is none of ours.
const LONGEST: u32 = 1 << 30;

/// A kept row.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) fingerprint: Fingerprint,
}

/// Entries; the last of a file may still wait in memory.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<Backing>,
    waiting: Vec<u8>,
}

#[derive(Debug)]
struct Backing {
    path: PathBuf,
    /// Reading moves the place in the file: nobody else looks at it meanwhile.
    file: RefCell<File>,
    written: u64,
    scratch: bool,
}

impl Log {
    /// Entries in memory.
    pub(super) fn in_memory() -> Self {
        Self { file: None, waiting: Vec::new() }
    }

    /// Entries in a file that is removed at the end.
    pub(super) fn scratch(path: &Path) -> Result<Self, DatasetError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(DatasetError::file("create the folder", folder))?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = RefCell::new(open.map_err(DatasetError::file("write", path))?);
        let backing = Backing { path: path.to_path_buf(), file, written: 0, scratch: true };
        Ok(Self { file: Some(backing), waiting: Vec::new() })
    }

    /// The entries of an index file and where those of the rows are, without what `source` left; `None` without a file.
    pub(super) fn open(path: &Path, source: &str) -> Result<Option<(Self, Vec<u64>)>, DatasetError> {
        let file = match OpenOptions::new().read(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(DatasetError::file("read", path))?,
        };
        let (places, _) = scan(&file, path, source)?;
        let written = file.metadata().map_err(DatasetError::file("read", path))?.len();
        let backing = Backing { path: path.to_path_buf(), file: RefCell::new(file), written, scratch: false };
        Ok(Some((Self { file: Some(backing), waiting: Vec::new() }, places)))
    }

    /// Adds a row; where it is.
    pub(super) fn append(&mut self, id: &str, fingerprint: &Fingerprint) -> Result<u64, DatasetError> {
        let written = self.file.as_ref().map_or(0, |file| file.written);
        let place = written + self.waiting.len() as u64;
        let mut body = vec![b'R'];
        body.extend((id.len() as u32).to_le_bytes());
        body.extend(id.as_bytes());
        for shingles in std::iter::once(&fingerprint.whole).chain(&fingerprint.end) {
            body.extend(shingles.numbers().to_le_bytes());
            body.extend((shingles.hashes().len() as u32).to_le_bytes());
            body.extend(shingles.hashes().iter().flat_map(|hash| hash.to_le_bytes()));
        }
        push(&mut self.waiting, &body);
        if let Some(backing) = self.file.as_mut().filter(|_| self.waiting.len() >= WAITING) {
            let file = backing.file.get_mut();
            let written = file.seek(SeekFrom::Start(backing.written)).and_then(|_| file.write_all(&self.waiting));
            written.map_err(DatasetError::file("write", &backing.path))?;
            backing.written += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(place)
    }

    /// The row at a place that [`append`](Self::append) or [`open`](Self::open) gave.
    pub(super) fn read(&self, place: u64) -> Result<Entry, DatasetError> {
        let Some(backing) = self.file.as_ref().filter(|file| place < file.written) else {
            let at = place - self.file.as_ref().map_or(0, |file| file.written);
            return body_of(&mut &self.waiting[at as usize..]).and_then(|body| entry(&body)).map_err(|error| {
                DatasetError::File { action: "read", path: PathBuf::from("the shingles in memory"), source: error }
            });
        };
        let mut file = backing.file.borrow_mut();
        let read = file.seek(SeekFrom::Start(place)).and_then(|_| body_of(&mut *file)).and_then(|body| entry(&body));
        read.map_err(DatasetError::file("read", &backing.path))
    }

    /// Adds all entries to an index file, as those of `source`.
    pub(super) fn append_to(&self, path: &Path, source: &str) -> Result<(), DatasetError> {
        let failed = || DatasetError::file("write", path);
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed())?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(failed())?;
        // A torn end of a run that was killed here.
        let whole = if file.metadata().map_err(failed())?.len() == 0 { 0 } else { scan(&file, path, source)?.1 };
        let mut write = || -> io::Result<()> {
            file.set_len(whole)?;
            file.seek(SeekFrom::Start(whole))?;
            let mut start = if whole == 0 { MAGIC.to_vec() } else { Vec::new() };
            push(&mut start, &[b"S", source.as_bytes()].concat());
            file.write_all(&start)?;
            if let Some(backing) = &self.file {
                let mut from = backing.file.borrow_mut();
                from.seek(SeekFrom::Start(0))?;
                io::copy(&mut (&mut *from).take(backing.written), &mut file)?;
            }
            file.write_all(&self.waiting)?;
            file.sync_all()
        };
        write().map_err(failed())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(backing) = self.file.as_ref().filter(|backing| backing.scratch) {
            let _ = fs::remove_file(&backing.path);
        }
    }
}

/// The places of the rows that are not of `source`, and where the last whole entry ends.
fn scan(file: &File, path: &Path, source: &str) -> Result<(Vec<u64>, u64), DatasetError> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut magic = vec![0; MAGIC.len()];
    let started = reader.seek(SeekFrom::Start(0)).and_then(|_| reader.read_exact(&mut magic));
    if started.is_err() || magic != MAGIC {
        let reason = "this is not an index of near-duplicates (name another file; it is made where there is none)";
        return Err(DatasetError::whole(path, reason));
    }
    let mut place = MAGIC.len() as u64;
    let mut by_source: HashMap<String, Vec<u64>> = HashMap::new();
    let mut current = String::new();
    loop {
        let body = match body_of(&mut reader) {
            Ok(body) => body,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(DatasetError::file("read", path)(error)),
        };
        match body.split_first() {
            Some((b'S', name)) => {
                current = String::from_utf8_lossy(name).into_owned();
                by_source.remove(&current);
            }
            _ => by_source.entry(current.clone()).or_default().push(place),
        }
        place += 8 + body.len() as u64;
    }
    by_source.remove(source);
    let mut places: Vec<u64> = by_source.into_values().flatten().collect();
    places.sort_unstable();
    Ok((places, place))
}

fn push(bytes: &mut Vec<u8>, body: &[u8]) {
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend((hash_of(body.iter().copied()) as u32).to_le_bytes());
    bytes.extend(body);
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "an entry is damaged; delete the file to begin a new index")
}

/// The body of the entry that begins here.
fn body_of(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut word = || -> io::Result<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    };
    let (length, hash) = (word()?, word()?);
    if length > LONGEST {
        return Err(damaged());
    }
    // Not reserved before it is there: the length may be anything.
    let mut body = Vec::new();
    reader.take(u64::from(length)).read_to_end(&mut body)?;
    if body.len() < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if hash_of(body.iter().copied()) as u32 == hash { Ok(body) } else { Err(damaged()) }
}

fn entry(body: &[u8]) -> io::Result<Entry> {
    let mut rest = body.strip_prefix(b"R").ok_or_else(damaged)?;
    let mut take = |count: usize| -> io::Result<&[u8]> {
        let (taken, after) = rest.split_at_checked(count).ok_or_else(damaged)?;
        rest = after;
        Ok(taken)
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
    let length = number(take(4)?) as usize;
    let id = String::from_utf8_lossy(take(length)?).into_owned();
    let mut shingles = || -> io::Result<Option<Shingles>> {
        let Ok(numbers) = take(4).map(number) else { return Ok(None) };
        let count = number(take(4)?) as usize;
        let hashes = take(count.checked_mul(4).ok_or_else(damaged)?)?.chunks_exact(4).map(number).collect();
        Ok(Some(Shingles::from_parts(hashes, numbers)))
    };
    let whole = shingles()?.ok_or_else(damaged)?;
    Ok(Entry { id, fingerprint: Fingerprint { whole, end: shingles()? } })
}
