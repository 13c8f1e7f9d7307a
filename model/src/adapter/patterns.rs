//! Values for modules by regular expressions on their names, as PEFT's `rank_pattern` and `alpha_pattern`.

use std::fmt;
use std::marker::PhantomData;

use fancy_regex::Regex;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ModelError;

/// Patterns and their values, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct ModulePatterns<T>(pub Vec<(String, T)>);

impl<T> Default for ModulePatterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ModulePatterns<T> {
    /// Refuses a pattern that is no regular expression.
    pub fn check(&self) -> Result<(), ModelError> {
        self.0.iter().try_for_each(|(pattern, _)| matches_whole_module(pattern, "").map(|_| ()))
    }

    /// The first pattern that matches the end of a module's name (`model.layers.0.self_attn.q_proj`), after a dot or whole
    /// (PEFT: `re.match(rf"(.*\.)?({pattern})$", module)`): its place and its value.
    ///
    /// # Errors
    ///
    /// A pattern that is no regular expression.
    pub fn find(&self, module: &str) -> Result<Option<(usize, &T)>, ModelError> {
        for (place, (pattern, value)) in self.0.iter().enumerate() {
            if matches(&format!("^(?:.*\\.)?(?:{pattern})$"), pattern, module)? {
                return Ok(Some((place, value)));
            }
        }
        Ok(None)
    }
}

/// Whether a regular expression matches the whole name of a module, as PEFT takes `target_modules` that are one string.
///
/// # Errors
///
/// A pattern that is no regular expression.
pub fn matches_whole_module(pattern: &str, module: &str) -> Result<bool, ModelError> {
    matches(&format!("^(?:{pattern})$"), pattern, module)
}

fn matches(regex: &str, pattern: &str, module: &str) -> Result<bool, ModelError> {
    let bad = |error: fancy_regex::Error| {
        ModelError::invalid(
            format!("pattern {pattern:?}"),
            error.to_string(),
            "write a regular expression such as layers\\.[0-3]\\..*q_proj",
        )
    };
    Regex::new(regex).map_err(bad)?.is_match(module).map_err(bad)
}

impl<T: Serialize> Serialize for ModulePatterns<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, value) in &self.0 {
            map.serialize_entry(pattern, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ModulePatterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = ModulePatterns<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("patterns on the names of modules with a number each, such as {q_proj: 8}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut patterns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    patterns.push(entry);
                }
                Ok(ModulePatterns(patterns))
            }
        }

        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_an_end_counts() {
        let patterns: ModulePatterns<usize> =
            serde_json::from_str(r#"{"up_proj": 1, "layers.1.mlp.*": 2, "_proj": 3, "o_proj": 4}"#).unwrap();
        let find = |module: &str| patterns.find(module).unwrap().map(|(_, value)| *value);
        assert_eq!(find("model.layers.1.mlp.up_proj"), Some(1));
        assert_eq!(find("model.layers.1.mlp.gate_proj"), Some(2));
        assert_eq!(find("model.layers.11.mlp.gate_proj"), None);
        assert_eq!(find("model.layers.0.self_attn.o_proj"), Some(4));
        assert_eq!(find("model.layers.0.self_attn.q_proj"), None);
        assert!(ModulePatterns(vec![("(".to_owned(), 1)]).find("x").unwrap_err().to_string().contains("\"(\""));
        assert!(matches_whole_module(r".*\.[01]\..*q_proj|x", "model.layers.1.self_attn.q_proj").unwrap());
        assert!(!matches_whole_module("q_proj", "model.layers.1.self_attn.q_proj").unwrap());
    }
}
