//! Adapters that requests choose by name.

use espalier_model::{ChatTemplate, LoraAdapter};

use crate::branch::adapter_hash;
use crate::error::EngineError;

/// An adapter that requests may name; its branches are in the weights, at its place among the others.
pub(crate) struct NamedAdapter {
    name: String,
    hash: String,
    /// The adapter's own, or the model's.
    template: ChatTemplate,
}

impl NamedAdapter {
    pub(crate) fn new(name: &str, adapter: &LoraAdapter, template: ChatTemplate) -> Self {
        Self { name: name.to_owned(), hash: adapter_hash(adapter), template }
    }
}

/// The named adapters of an engine, in the order of their branches.
#[derive(Default)]
pub(crate) struct NamedAdapters(Vec<NamedAdapter>);

impl NamedAdapters {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|adapter| adapter.name.as_str())
    }

    /// The place of the adapter of that name.
    pub(crate) fn place(&self, name: &str) -> Result<usize, EngineError> {
        self.0.iter().position(|adapter| adapter.name == name).ok_or_else(|| {
            let names: Vec<String> = self.names().map(|name| format!("{name:?}")).collect();
            let known = if names.is_empty() { "none that can be named".to_owned() } else { names.join(", ") };
            EngineError::UnknownAdapter { name: name.to_owned(), known }
        })
    }

    /// The template of conversations with the adapter at a place.
    pub(crate) fn template(&self, place: usize) -> Option<&ChatTemplate> {
        self.0.get(place).map(|adapter| &adapter.template)
    }

    /// Names and hashes of all with one more, in an order of their own.
    pub(crate) fn identity_with(&self, new: &NamedAdapter) -> String {
        let all = self.0.iter().chain([new]);
        let mut hashes: Vec<String> = all.map(|adapter| format!("{}={}", adapter.name, adapter.hash)).collect();
        hashes.sort_unstable();
        hashes.join(",")
    }

    pub(crate) fn push(&mut self, new: NamedAdapter) {
        self.0.push(new);
    }
}

/// Refuses an adapter that cannot stand beside those of these names.
pub(crate) fn check_beside<'a>(
    name: &str,
    adapter: &LoraAdapter,
    mut others: impl Iterator<Item = &'a str>,
) -> Result<(), EngineError> {
    let problem = if others.any(|other| other == name) {
        format!("two are called {name:?}; give each a name of its own")
    } else if adapter.is_dora() {
        format!(
            "{name:?} is a DoRA adapter, which changes the base that all requests share; use it alone, or merge it into a model"
        )
    } else {
        return Ok(());
    };
    Err(EngineError::Option { option: "adapter", problem })
}
