//! Files that are whole or not there, on the disk before they have their name.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind};
use std::path::Path;

/// Writes a file under `NAME.part` in its own folder (made when it is not there), syncs it to the disk and renames it to
/// its name. After a failure the old file, if there was one, is untouched and the partial one removed.
///
/// # Errors
/// When the folder or the file cannot be made, written, synced or renamed, and whatever `fill` returns.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path names no file"))?;
    let mut name = name.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    fs::create_dir_all(folder_of(path))?;
    let guard = RemoveOnDrop(&part);
    let mut writer = BufWriter::new(File::create(&part)?);
    fill(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    rename_durably(&part, path)?;
    std::mem::forget(guard);
    Ok(())
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

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
