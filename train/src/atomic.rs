//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::TrainError;

/// Writes `bytes` under a temporary name, to the disk, then renames.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let temporary = path.with_file_name(name);
    let written = write_durably(&temporary, bytes);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    fs::rename(&temporary, path).map_err(TrainError::file(path, "rename the finished file to it"))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes `bytes` and waits until they are on the disk.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut file = File::create(path).map_err(TrainError::file(path, "create it"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(TrainError::file(path, "write to it"))
}

/// Makes renames inside a folder durable, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    if cfg!(unix) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)
            .and_then(|file| file.sync_all())
            .map_err(TrainError::file(folder, "flush it to the disk"))?;
    }
    Ok(())
}
