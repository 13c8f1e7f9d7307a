//! The model cache: one folder a content hash, one small file a reference.

use crate::content::{hash_bytes, hash_path, length, write_atomically};
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
    /// The file, or the folder of a Hugging Face model.
    pub path: PathBuf,
    /// Content hash.
    pub sha256: String,
    /// Licence as its package or its card states it.
    pub license: Option<String>,
    /// Length of the file, or of all files of the folder.
    pub bytes: u64,
    /// The commit that was fetched, where the reference may mean another one tomorrow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
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
        let whole = length(&found.path).is_ok_and(|bytes| bytes == found.bytes);
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

    /// Where unfinished downloads of a kind lie; made when it is not there.
    pub fn unfinished(&self, kind: &str) -> Result<PathBuf> {
        let folder = self.root.join("fetching").join(kind);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// Moves a complete file or folder into the cache under its content hash.
    pub fn store(&self, fetched: &Path, name: &str, mut model: CachedModel) -> Result<CachedModel> {
        model.path = PathBuf::from("models").join(&model.sha256).join(name);
        let place = self.root.join(&model.path);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        if place.is_dir() {
            // An earlier reference brought the same content, or what is left of it.
            fs::remove_dir_all(&place).with_context(|| format!("cannot replace {}", place.display()))?;
        }
        rename_durably(fetched, &place).with_context(|| format!("cannot move the model to {}", place.display()))?;
        model.bytes = length(&place)?;
        write_atomically(&self.entry(&model.reference), serde_json::to_string_pretty(&model)?.as_bytes())?;
        model.path = place;
        Ok(model)
    }

    /// Hashes a cached model again; `true` when it is still what was fetched.
    pub fn verify(&self, model: &CachedModel) -> Result<bool> {
        Ok(hash_path(&model.path)? == model.sha256)
    }

    /// Removes a reference, and its content where no other reference brought the same.
    pub fn remove(&self, model: &CachedModel) -> Result<()> {
        let shared = self.list()?.iter().filter(|other| other.sha256 == model.sha256).count() > 1;
        fs::remove_file(self.entry(&model.reference)).context("cannot remove the cache entry")?;
        if !shared {
            let removed =
                if model.path.is_dir() { fs::remove_dir_all(&model.path) } else { fs::remove_file(&model.path) };
            removed.with_context(|| format!("cannot remove {}", model.path.display()))?;
            if let Some(folder) = model.path.parent() {
                let _ = fs::remove_dir(folder);
            }
        }
        Ok(())
    }
}

impl CachedModel {
    /// A model that is about to be stored; the cache adds place and length.
    pub fn fetched(reference: &str, sha256: String, license: Option<String>) -> Self {
        Self { reference: reference.to_owned(), path: PathBuf::new(), sha256, license, bytes: 0, commit: None }
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
        let model = CachedModel::fetched("pypi:m@1", hash_path(&file)?, Some("Apache-2.0".into()));
        let stored = cache.store(&file, "m.gguf", model)?;
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

    #[test]
    fn two_references_share_a_folder_until_the_last_is_removed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let cache = ModelCache::at(folder.path().join("cache"));
        let store = |reference: &str| {
            let fetched = folder.path().join("fetched");
            write_atomically(&fetched.join("config.json"), b"{}")?;
            write_atomically(&fetched.join("1_Pooling/config.json"), b"{}")?;
            cache.store(&fetched, "m", CachedModel::fetched(reference, hash_path(&fetched)?, None))
        };
        let (one, other) = (store("hf:o/m")?, store("hf:o/m@main")?);
        assert_eq!((&one.path, one.bytes), (&other.path, 4));
        cache.remove(&one)?;
        assert!(cache.verify(&other)?);
        cache.remove(&other)?;
        assert!(!other.path.exists());
        Ok(())
    }
}
