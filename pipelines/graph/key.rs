//! What a stage's result depends on, as named parts, so that a re-run can say which part changed.

use crate::content::hash_bytes;
use std::collections::BTreeMap;

/// The named parts of a stage's cache key: configuration values, content hashes of inputs, numerics, stage version.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Components(BTreeMap<String, String>);

impl Components {
    /// Adds one part.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// Adds every leaf value of a configuration as `config.NAME`.
    pub fn add_config(&mut self, config: &serde_json::Value) {
        if let serde_json::Value::Object(object) = config {
            for (name, value) in object {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                self.add(format!("config.{name}"), text);
            }
        }
    }

    /// The parts in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    /// One part.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The key itself: a hash over all parts.
    pub fn digest(&self) -> String {
        let text: String = self.0.iter().map(|(name, value)| format!("{name}\u{0}{value}\u{0}")).collect();
        hash_bytes(text.as_bytes())
    }
}

/// Says in words which parts differ: `rank changed from 8 to 16`, `leaf skills/dates changed`.
pub fn differences(before: &Components, now: &Components) -> Vec<String> {
    let mut reasons = Vec::new();
    for (name, value) in &now.0 {
        match before.0.get(name) {
            Some(old) if old == value => {}
            Some(old) => reasons.push(changed(name, old, value)),
            None => reasons.push(format!("{} is new", label(name))),
        }
    }
    for name in before.0.keys().filter(|name| !now.0.contains_key(*name)) {
        reasons.push(format!("{} is gone", label(name)));
    }
    reasons
}

fn changed(name: &str, old: &str, new: &str) -> String {
    // Hashes say nothing to a person; values do.
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash(old) || is_hash(new) {
        format!("{} changed", label(name))
    } else {
        format!("{} changed from {old} to {new}", label(name))
    }
}

fn label(name: &str) -> String {
    match name.split_once('.') {
        Some(("config", rest)) => format!("`{rest}`"),
        Some(("leaf", rest)) => format!("leaf {rest}"),
        Some(("input", rest)) => rest.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_in_words() {
        let mut before = Components::default();
        before.add_config(&serde_json::json!({"rank": 8, "targets": ["q_proj"]}));
        before.add("leaf.skills/dates", "a".repeat(64));
        before.add("input.rows", "b".repeat(64));
        before.add("gone", "1");
        let mut now = Components::default();
        now.add_config(&serde_json::json!({"rank": 16, "targets": ["q_proj"]}));
        now.add("leaf.skills/dates", "c".repeat(64));
        now.add("input.rows", "b".repeat(64));
        now.add("leaf.new", "d".repeat(64));
        assert_eq!(
            differences(&before, &now),
            ["`rank` changed from 8 to 16", "leaf new is new", "leaf skills/dates changed", "gone is gone"]
        );
        assert!(before.digest() != now.digest());
        assert!(differences(&now, &now.clone()).is_empty());
    }
}
