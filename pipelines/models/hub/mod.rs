//! Models of a Hugging Face hub, fetched into our cache: files are gone on with after a break and checked against the hashes
//! that the hub states.
//!
//! The requests are our own, over `ureq`: the hub's crate brings an asynchronous runtime and a second HTTP stack, and does
//! not check what arrived.

mod choice;
mod client;
mod download;
mod listing;
mod settings;
mod words;

use super::reference::HubReference;
use super::{CachedModel, ModelCache};
use crate::content::hash_folder;
use crate::disk::free_bytes;
use crate::events::Event;
use crate::outcome::Failure;
use crate::reporter::{Reporter, size};
use anyhow::{Context, Result};
use choice::{Choice, choose};
use client::HubClient;
use download::DownloadError;
use listing::{Listing, RepositoryFile};
use settings::HubSettings;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use words::Asked;

/// Fetches the model of `reference` (which a person wrote as `text`) into the cache.
pub(super) fn fetch(
    cache: &ModelCache,
    text: &str,
    reference: &HubReference,
    reporter: &Reporter,
    stop: &AtomicBool,
) -> Result<CachedModel> {
    let settings = HubSettings::from_environment()?;
    let client = HubClient::new(&settings, stop);
    let asked = Asked { reference, settings: &settings };
    let listing = if settings.offline {
        let shared = settings.shared_cache.as_deref().and_then(|folder| listing::snapshot(folder, reference));
        shared.ok_or_else(|| asked.offline())?
    } else {
        listing::ask(&client, reference).map_err(|trouble| asked.trouble(trouble, None))?
    };
    let choice = choose(&listing, reference)?;
    let parts = cache.unfinished("hub")?;
    let fetching = Fetching { client: &client, asked: &asked, commit: &listing.commit, parts: &parts, reporter };
    fetching.announce(text, &listing, &choice);
    fetching.check_space(choice.files())?;
    let files = fetching.files(choice.files())?;
    let license = listing.license.map(|license| license.name);
    let keep = |path: &Path, name: &str, sha256: String| {
        let model = CachedModel { commit: Some(listing.commit.clone()), ..CachedModel::fetched(text, sha256, license) };
        cache.store(path, name, model)
    };
    match choice {
        Choice::File(file) => {
            let [(part, sha256)] = files.as_slice() else { anyhow::bail!("one file was chosen") };
            keep(part, file_name(&file.path), sha256.clone())
        }
        Choice::Folder(chosen) => {
            let (folder, sha256) = assemble(&parts, &chosen, &files)?;
            keep(&folder, file_name(&reference.repository), sha256)
        }
    }
}

/// One fetch.
struct Fetching<'a> {
    client: &'a HubClient<'a>,
    asked: &'a Asked<'a>,
    commit: &'a str,
    parts: &'a Path,
    reporter: &'a Reporter,
}

impl Fetching<'_> {
    /// What will be fetched, and under which licence.
    fn announce(&self, text: &str, listing: &Listing, choice: &Choice) {
        let files = choice.files();
        let bytes = size(files.iter().map(|file| file.bytes).sum());
        let what = match choice {
            Choice::File(file) => file.path.clone(),
            Choice::Folder(files) => format!("{} files", files.len()),
        };
        let commit = &listing.commit[..listing.commit.len().min(12)];
        self.note(format!("{text}: {what}, {bytes}, commit {commit}"));
        self.note(self.asked.license(listing.license.as_ref()));
    }

    fn note(&self, message: String) {
        self.reporter.send(&Event::Note { stage: "fetch".into(), message });
    }

    /// Refuses what the disk cannot hold before anything is fetched.
    fn check_space(&self, files: &[RepositoryFile]) -> Result<()> {
        let missing = |file: &RepositoryFile| {
            let here = fs::metadata(self.part(file)).map_or(0, |metadata| metadata.len());
            file.bytes.saturating_sub(here)
        };
        let missing: u64 = files.iter().map(missing).sum();
        match free_bytes(self.parts) {
            Some(free) if free < missing => {
                let message =
                    format!("the model needs {}, and {} has {} free", size(missing), self.parts.display(), size(free));
                let hint = "free some space (`pipeline model list` shows what is in the cache), or set ESPALIER_CACHE to a folder on another disk";
                Err(Failure::usage(message).hint(hint).into())
            }
            _ => Ok(()),
        }
    }

    /// Where a file of this content grows.
    fn part(&self, file: &RepositoryFile) -> PathBuf {
        self.parts.join(format!("{}.part", file.hash.hex()))
    }

    /// Fetches files in order; gives where each one is and its SHA-256.
    fn files(&self, files: &[RepositoryFile]) -> Result<Vec<(PathBuf, String)>> {
        let total = files.iter().map(|file| file.bytes).sum();
        let mut before = 0;
        let mut fetched = Vec::new();
        for file in files {
            let part = self.part(file);
            let mut progress = |done: u64| self.progress(before + done, total);
            let sha256 = self.file(file, &part, &mut progress)?;
            fetched.push((part, sha256));
            before += file.bytes;
        }
        self.progress(total, total);
        Ok(fetched)
    }

    fn file(&self, file: &RepositoryFile, part: &Path, progress: &mut download::Progress<'_>) -> Result<String> {
        let Asked { reference, settings } = self.asked;
        if let Some(cache) = &settings.shared_cache {
            let shared = listing::shared_file(cache, &reference.repository, &file.hash);
            if let Some(sha256) = download::take_shared(file, &shared, part, progress) {
                return Ok(sha256);
            }
        }
        if settings.offline {
            return Err(self.asked.offline().into());
        }
        let address = format!("/{}/resolve/{}/{}", reference.repository, self.commit, escape(&file.path));
        download::fetch(self.client, &address, file, part, progress).map_err(|error| match error {
            DownloadError::Hub(trouble) => self.asked.trouble(trouble, Some(&file.path)),
            DownloadError::Other(error) => error,
        })
    }

    fn progress(&self, done: u64, total: u64) {
        self.reporter.send(&Event::Progress {
            stage: "fetch".into(),
            part: "download".into(),
            done,
            total,
            unit: "bytes".into(),
            detail: String::new(),
        });
    }
}

/// Puts fetched files under their names into one folder; gives it and its content hash.
fn assemble(parts: &Path, chosen: &[RepositoryFile], files: &[(PathBuf, String)]) -> Result<(PathBuf, String)> {
    let named = chosen.iter().zip(files).map(|(file, (_, sha256))| (PathBuf::from(&file.path), sha256.clone()));
    let sha256 = hash_folder(named.collect());
    let folder = parts.join(format!("{sha256}.folder"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    for (file, (part, _)) in chosen.iter().zip(files) {
        let place = folder.join(&file.path);
        let above = place.parent().unwrap_or(&folder);
        fs::create_dir_all(above).with_context(|| format!("cannot create {}", above.display()))?;
        // Two files of one content come from one part.
        fs::hard_link(part, &place)
            .or_else(|_| fs::copy(part, &place).map(|_| ()))
            .with_context(|| format!("cannot write {} (is the disk full?)", place.display()))?;
    }
    for (part, _) in files {
        let _ = fs::remove_file(part);
    }
    Ok((folder, sha256))
}

/// The part of a path after its last slash.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A path as it stands in an address.
fn escape(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_path_is_escaped_for_an_address() {
        assert_eq!(super::escape("sub/a b#1.gguf"), "sub/a%20b%231.gguf");
    }
}
