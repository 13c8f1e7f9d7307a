//! Files that are whole or not there.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::DatasetError;

/// Writes a file under `NAME.part`, syncs it to the disk and renames it to its name. After a failure the old file, if there
/// was one, is untouched and the partial one removed.
///
/// # Errors
/// When the file cannot be made, written, synced or renamed.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let part = path.with_file_name(name);
    let guard = RemoveOnDrop(&part);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(DatasetError::file("create the folder", folder))?;
    }
    let file = File::create(&part).map_err(DatasetError::file("write", &part))?;
    let mut writer = BufWriter::new(file);
    write(&mut writer)?;
    writer.flush().map_err(DatasetError::file("write", &part))?;
    writer.get_ref().sync_all().map_err(DatasetError::file("write", &part))?;
    drop(writer);
    fs::rename(&part, path).map_err(DatasetError::file("rename to", path))?;
    std::mem::forget(guard);
    sync_folder(path);
    Ok(())
}

/// Makes the rename itself last. Some file systems refuse to sync a folder; the file's own bytes are safe by then.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

struct RemoveOnDrop<'a>(&'a PathBuf);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file.txt");
        let put = |text: &'static str| {
            write_atomically(&path, |out| out.write_all(text.as_bytes()).map_err(DatasetError::file("write", &path)))
        };
        put("one").unwrap();
        put("two").unwrap();
        write_atomically(&path, |_| Err(DatasetError::table(&path, &"no"))).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
