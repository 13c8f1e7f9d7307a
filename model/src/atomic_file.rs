//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::ModelError;

/// A file written under `NAME.part` in the folder of its target and renamed at the end.
///
/// Dropped before [`AtomicFile::finish`], it takes the temporary file away and leaves an older target as it was.
pub(crate) struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl AtomicFile {
    pub(crate) fn create(target: &Path) -> Result<Self, ModelError> {
        let Some(name) = target.file_name() else {
            return Err(ModelError::invalid(
                target.display().to_string(),
                "the path names no file",
                "pass a path that ends in a file name",
            ));
        };
        let mut name = name.to_owned();
        name.push(".part");
        let temporary = target.with_file_name(name);
        let file = File::create(&temporary).map_err(ModelError::file(&temporary, "create it"))?;
        let writer = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { target: target.to_owned(), temporary, writer })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        // The writer is there until `finish`, which takes `self`.
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        writer.write_all(bytes).map_err(ModelError::file(&self.temporary, "write to it"))
    }

    /// Bytes to the disk, then the name, then the folder's entry to the disk.
    pub(crate) fn finish(mut self) -> Result<(), ModelError> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let renamed = writer
            .flush()
            .and_then(|()| writer.get_ref().sync_all())
            .map_err(ModelError::file(&self.temporary, "flush it to the disk"))
            .and_then(|()| {
                fs::rename(&self.temporary, &self.target)
                    .map_err(ModelError::file(&self.target, "rename the finished file to it"))
            });
        if renamed.is_err() {
            let _ = fs::remove_file(&self.temporary);
            return renamed;
        }
        sync_folder(&self.target)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes a rename in the folder of `target` last; only Unix opens folders as files.
#[cfg(unix)]
pub(crate) fn sync_folder(target: &Path) -> Result<(), ModelError> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(ModelError::file(folder, "flush the folder to the disk"))
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_target: &Path) -> Result<(), ModelError> {
    Ok(())
}
