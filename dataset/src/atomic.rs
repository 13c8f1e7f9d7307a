//! Files that are whole or not there, on the disk before they have their name.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Writes a file under `NAME.part` in its own folder (made when it is not there), syncs it to the disk and renames it to
/// its name. After a failure the old file, if there was one, is untouched and the partial one removed.
///
/// # Errors
/// When the folder or the file cannot be made, written, synced or renamed, and whatever `fill` returns.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    fill(&mut file.writer)?;
    file.commit()
}

/// A file that is written under `NAME.part` until [`commit`](Self::commit) gives it its name; dropped before, it is removed.
pub(crate) struct AtomicFile {
    writer: BufWriter<File>,
    part: RemoveOnDrop,
    path: PathBuf,
}

impl AtomicFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path names no file"))?;
        let mut name = name.to_owned();
        name.push(".part");
        fs::create_dir_all(folder_of(path))?;
        let part = RemoveOnDrop(path.with_file_name(name));
        Ok(Self { writer: BufWriter::new(File::create(&part.0)?), part, path: path.to_path_buf() })
    }

    pub(crate) fn commit(self) -> io::Result<()> {
        self.writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        rename_durably(&self.part.0, &self.path)?;
        std::mem::forget(self.part);
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Gives a finished file or folder its name and makes the name last: without the second sync a power cut may take it back.
///
/// # Errors
/// When it cannot be renamed, or the disk reports a failure.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(folder_of(to))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Some systems do not let a folder be opened or synced like a file; what a failing disk says is an error all the same.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file.txt");
        for text in ["one", "two"] {
            write_atomically(&path, |out| out.write_all(text.as_bytes())).unwrap();
        }
        write_atomically(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no"))
        })
        .unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_target_that_is_a_folder_is_refused_and_no_part_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("taken")).unwrap();
        write_atomically(&folder.path().join("taken"), |out| out.write_all(b"x")).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomically(Path::new("/"), |_| Ok(())).unwrap_err();
    }
}
