//! Folders that appear whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::ModelError;
use crate::atomic_file::sync_folder;

/// One of these stands in every folder that this project writes, and so may replace.
const OURS: [&str; 2] = ["config.json", "adapter_config.json"];

/// What to do about a folder of results that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse it.
    Keep,
    /// Put the finished folder in its place; it must hold a model or an adapter.
    Replace,
}

/// A folder written under `NAME.part` beside its target and renamed at the end.
///
/// Dropped before [`AtomicFolder::finish`], it takes the temporary folder away and leaves an older target as it was.
pub struct AtomicFolder {
    target: PathBuf,
    temporary: PathBuf,
    finished: bool,
}

impl AtomicFolder {
    /// Makes the temporary folder, and the folders above it.
    ///
    /// # Errors
    ///
    /// A target that holds something and may not be replaced, a path that names no folder, a disk that refuses.
    pub fn create(target: &Path, existing: Existing) -> Result<Self, ModelError> {
        refuse_existing(target, existing)?;
        let temporary = beside(target, ".part")?;
        remove(&temporary)?;
        fs::create_dir_all(&temporary).map_err(ModelError::file(&temporary, "create the folder"))?;
        Ok(Self { target: target.to_owned(), temporary, finished: false })
    }

    /// Where to write: the temporary folder.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Every file to the disk, then the name, then the entry of the folder above.
    pub fn finish(mut self) -> Result<(), ModelError> {
        let entries = fs::read_dir(&self.temporary).map_err(ModelError::file(&self.temporary, "list it"))?;
        for entry in entries.flatten() {
            let path = entry.path();
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(ModelError::file(&path, "flush it to the disk"))?;
        }
        let older = beside(&self.target, ".old")?;
        if self.target.is_dir() {
            remove(&older)?;
            fs::rename(&self.target, &older).map_err(ModelError::file(&self.target, "move the older folder away"))?;
        }
        if let Err(error) = fs::rename(&self.temporary, &self.target) {
            let _ = fs::rename(&older, &self.target);
            return Err(ModelError::file(&self.target, "rename the finished folder to it")(error));
        }
        self.finished = true;
        sync_folder(&self.target)?;
        remove(&older)
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

fn refuse_existing(target: &Path, existing: Existing) -> Result<(), ModelError> {
    let refuse = |problem: &str, remedy: &str| Err(ModelError::invalid(target.display().to_string(), problem, remedy));
    if target.is_file() {
        return refuse("there is a file of this name", "choose another folder");
    }
    let Ok(mut entries) = fs::read_dir(target) else {
        return Ok(());
    };
    if entries.next().is_none() {
        return Ok(());
    }
    match existing {
        Existing::Keep => refuse("the folder is already there", "choose another one, or pass --force to replace it"),
        Existing::Replace if OURS.iter().any(|name| target.join(name).is_file()) => Ok(()),
        Existing::Replace => refuse(
            "the folder holds neither a model nor an adapter, so it is not replaced",
            "choose another one, or remove it yourself",
        ),
    }
}

/// `NAME` and the ending, in the folder of the target.
fn beside(target: &Path, ending: &str) -> Result<PathBuf, ModelError> {
    let Some(name) = target.file_name() else {
        return Err(ModelError::invalid(
            target.display().to_string(),
            "the path names no folder",
            "pass a path that ends in the name of a folder",
        ));
    };
    let mut name = name.to_owned();
    name.push(ending);
    Ok(target.with_file_name(name))
}

/// Takes away what an interrupted run left.
fn remove(folder: &Path) -> Result<(), ModelError> {
    if folder.is_dir() {
        fs::remove_dir_all(folder).map_err(ModelError::file(folder, "remove it"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, existing: Existing, text: &str) -> Result<(), ModelError> {
        let folder = AtomicFolder::create(target, existing)?;
        fs::write(folder.path().join("config.json"), text).unwrap();
        assert!(target.with_file_name("out.part").is_dir());
        folder.finish()
    }

    #[test]
    fn a_folder_appears_whole_and_replaces_only_its_like() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("deep/out");
        write(&target, Existing::Keep, "one").unwrap();
        let refused = write(&target, Existing::Keep, "two").unwrap_err().to_string();
        assert!(refused.contains("already there") && refused.contains("--force"), "{refused}");
        write(&target, Existing::Replace, "two").unwrap();
        assert_eq!(fs::read_to_string(target.join("config.json")).unwrap(), "two");

        drop(AtomicFolder::create(&target, Existing::Replace).unwrap());
        assert_eq!(fs::read_to_string(target.join("config.json")).unwrap(), "two");
        let names: Vec<_> = fs::read_dir(place.path().join("deep")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["out"]);

        fs::rename(target.join("config.json"), target.join("letter.txt")).unwrap();
        let refused = write(&target, Existing::Replace, "three").unwrap_err().to_string();
        assert!(refused.contains("not replaced"), "{refused}");
        assert!(target.join("letter.txt").is_file());
        let refused = write(&target.join("letter.txt"), Existing::Keep, "x").unwrap_err().to_string();
        assert!(refused.contains("a file of this name"), "{refused}");
    }
}
