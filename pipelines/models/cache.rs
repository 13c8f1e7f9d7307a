//! The model cache: one folder a content hash, one small file a reference.

use crate::content::{hash_bytes, hash_file, write_atomically};
use anyhow::{Context, Result};
use espalier_dataset::rename_durably;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// `$ESPALIER_CACHE`, or `espalier` in the user's cache folder.
#[derive(Debug, Clone)]
pub struct ModelCache {
    root: PathBuf,
}

/// A model in the cache.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct CachedModel {
    /// The reference that brought it.
    pub reference: String,
    /// The file.
    pub path: PathBuf,
    /// Content hash.
    pub sha256: String,
    /// Licence as its package states it.
    pub license: Option<String>,
    /// Length of the file.
    pub bytes: u64,
}

impl ModelCache {
    /// The cache of this user; folders are made when something is stored.
    pub fn open() -> Result<Self> {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = from("ESPALIER_CACHE")
            .or_else(|| from("XDG_CACHE_HOME").map(|folder| folder.join("espalier")))
            .or_else(|| from("HOME").map(|folder| folder.join(".cache/espalier")))
            .context("no cache folder: set ESPALIER_CACHE to a folder for models")?;
        Ok(Self { root })
    }

    /// A cache in a given folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn entry(&self, reference: &str) -> PathBuf {
        self.root.join("references").join(format!("{}.json", &hash_bytes(reference.as_bytes())[..24]))
    }

    /// The model of a reference, if it is here and its length is the recorded one.
    pub fn find(&self, reference: &str) -> Result<Option<CachedModel>> {
        let entry = self.entry(reference);
        let Ok(text) = fs::read_to_string(&entry) else { return Ok(None) };
        let Ok(mut found) = serde_json::from_str::<CachedModel>(&text) else {
            let _ = fs::remove_file(&entry);
            return Ok(None);
        };
        found.path = self.root.join(&found.path);
        let whole = fs::metadata(&found.path).is_ok_and(|metadata| metadata.len() == found.bytes);
        Ok(whole.then_some(found))
    }

    /// Every model here, by reference.
    pub fn list(&self) -> Result<Vec<CachedModel>> {
        let Ok(entries) = fs::read_dir(self.root.join("references")) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            if let Ok(text) = fs::read_to_string(entry.path())
                && let Ok(model) = serde_json::from_str::<CachedModel>(&text)
                && let Some(model) = self.find(&model.reference)?
            {
                found.push(model);
            }
        }
        found.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(found)
    }

    /// Moves a complete file into the cache under its content hash.
    pub fn store(
        &self,
        reference: &str,
        file: &Path,
        name: &str,
        sha256: &str,
        license: Option<String>,
    ) -> Result<CachedModel> {
        let relative = PathBuf::from("models").join(sha256).join(name);
        let place = self.root.join(&relative);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        rename_durably(file, &place).with_context(|| format!("cannot move the model to {}", place.display()))?;
        let bytes = fs::metadata(&place)?.len();
        let stored = CachedModel { reference: reference.into(), path: relative, sha256: sha256.into(), license, bytes };
        write_atomically(&self.entry(reference), serde_json::to_string_pretty(&stored)?.as_bytes())?;
        Ok(CachedModel { path: place, ..stored })
    }

    /// Hashes a cached file again; `true` when it is still what was fetched.
    pub fn verify(&self, model: &CachedModel) -> Result<bool> {
        Ok(hash_file(&model.path)? == model.sha256)
    }

    /// Removes a reference and its file.
    pub fn remove(&self, model: &CachedModel) -> Result<()> {
        let shared = self.list()?.iter().filter(|other| other.sha256 == model.sha256).count() > 1;
        fs::remove_file(self.entry(&model.reference)).context("cannot remove the cache entry")?;
        if !shared {
            fs::remove_file(&model.path).with_context(|| format!("cannot remove {}", model.path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_stored_found_verified_and_removed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let cache = ModelCache::at(folder.path().join("cache"));
        let file = folder.path().join("m.part");
        fs::write(&file, b"weights")?;
        let sha256 = hash_file(&file)?;
        let stored = cache.store("pypi:m@1", &file, "m.gguf", &sha256, Some("Apache-2.0".into()))?;
        assert_eq!(cache.find("pypi:m@1")?.as_ref(), Some(&stored));
        assert!(cache.verify(&stored)?);
        fs::write(&stored.path, b"weighty")?;
        assert!(!cache.verify(&stored)?);
        fs::write(&stored.path, b"cut")?;
        assert_eq!(cache.find("pypi:m@1")?, None, "a file of another length is not the model");
        fs::write(&stored.path, b"weights")?;
        cache.remove(&stored)?;
        assert!(cache.list()?.is_empty() && !stored.path.exists());
        Ok(())
    }
}
