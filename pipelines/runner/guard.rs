//! One run at a time in a run folder.

use crate::folder::RunFolder;
use crate::outcome::Failure;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions, TryLockError};

/// Holds the run folder. The lock is the operating system's: it goes with the process, however that ends.
#[derive(Debug)]
pub struct RunGuard {
    _file: File,
}

impl RunGuard {
    /// Takes the folder, or says that another run works there (exit code 75).
    pub fn take(folder: &RunFolder) -> Result<Self> {
        let path = folder.guard();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::try_again(format!("another run works in {}", folder.root().display()))
                    .hint("wait for it, or give this one its own folder with --run-dir")
                    .into())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_run() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let run = RunFolder::new(folder.path());
        let guard = RunGuard::take(&run)?;
        let second = RunGuard::take(&run).map(|_| ()).unwrap_err();
        assert_eq!(crate::outcome::error_code(&second), 75);
        drop(guard);
        RunGuard::take(&run)?;
        Ok(())
    }
}
