//! What changed between two states of a tree, told by content: no history is needed, and a folder that was renamed is known.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::hash::hexadecimal;
use crate::leaf::{Leaf, Seed};
use crate::tree::Tree;

/// Keys of a leaf that are compared by themselves, or that do not change what it teaches.
const APART: [&str; 10] =
    ["id", "file", "hash", "places", "seeds", "documents", "test", "test_file", "created_by", "license"];

/// What a tree held: enough to tell later what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeState {
    /// The form of this file: 1.
    pub espalier_tree: u32,
    /// The leaves by id.
    pub leaves: BTreeMap<String, LeafState>,
}

/// What a leaf held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafState {
    /// [`Leaf::hash`].
    pub hash: String,
    /// Hash of each answer by question; questions of one wording about several contexts are told apart by a hash of these.
    seeds: BTreeMap<String, String>,
    /// The same of the held-out test.
    tests: BTreeMap<String, String>,
    /// Hash of the text by the name of the file.
    documents: BTreeMap<String, String>,
    /// Hash of every other setting by its key.
    settings: BTreeMap<String, String>,
}

/// What changed, each list sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TreeDifference {
    /// Leaves that were not there.
    pub new: Vec<String>,
    /// Leaves of the same id that teach something else.
    pub changed: Vec<LeafDifference>,
    /// Leaves that are there no more.
    pub gone: Vec<String>,
    /// Leaves that lie elsewhere, with the same content: old and new id.
    pub moved: Vec<(String, String)>,
}

/// What changed in one leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeafDifference {
    /// The leaf.
    pub id: String,
    /// Its seeds, by question.
    pub seeds: PartDifference,
    /// Its held-out test, by question.
    pub tests: PartDifference,
    /// Its documents, by name.
    pub documents: PartDifference,
    /// Everything else, by key.
    pub settings: PartDifference,
}

/// What changed in one part of a leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartDifference {
    /// Not there before.
    pub added: Vec<String>,
    /// There before.
    pub removed: Vec<String>,
    /// There before with other content.
    pub changed: Vec<String>,
}

impl PartDifference {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    fn of(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Self {
        let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<String> {
            a.keys().filter(|key| !b.contains_key(*key)).cloned().collect()
        };
        let changed = |(key, hash): (&String, &String)| (new.get(key)? != hash).then(|| key.clone());
        Self { added: only(new, old), removed: only(old, new), changed: old.iter().filter_map(changed).collect() }
    }
}

impl TreeDifference {
    /// Whether both states teach the same in the same places.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What has to be done to get from one state to the other.
    pub fn between(old: &TreeState, new: &TreeState) -> Self {
        let only = |a: &TreeState, b: &TreeState| -> BTreeSet<String> {
            a.leaves.keys().filter(|id| !b.leaves.contains_key(*id)).cloned().collect()
        };
        let (mut gone, mut added) = (only(old, new), only(new, old));
        // Of several with one content, the first of each.
        let mut by_hash: HashMap<&str, Vec<&String>> = HashMap::new();
        for id in gone.iter().rev() {
            by_hash.entry(old.leaves[id].hash.as_str()).or_default().push(id);
        }
        let mut moved: Vec<(String, String)> = Vec::new();
        for id in &added {
            if let Some(from) = by_hash.get_mut(new.leaves[id].hash.as_str()).and_then(Vec::pop) {
                moved.push((from.clone(), id.clone()));
            }
        }
        for (from, to) in &moved {
            gone.remove(from);
            added.remove(to);
        }
        moved.sort();
        let changed = |(id, was): (&String, &LeafState)| {
            let is = new.leaves.get(id).filter(|is| is.hash != was.hash)?;
            Some(LeafDifference {
                id: id.clone(),
                seeds: PartDifference::of(&was.seeds, &is.seeds),
                tests: PartDifference::of(&was.tests, &is.tests),
                documents: PartDifference::of(&was.documents, &is.documents),
                settings: PartDifference::of(&was.settings, &is.settings),
            })
        };
        Self {
            new: added.into_iter().collect(),
            changed: old.leaves.iter().filter_map(changed).collect(),
            gone: gone.into_iter().collect(),
            moved,
        }
    }
}

impl TreeState {
    /// The state of a tree as it is.
    pub fn of(tree: &Tree) -> Self {
        let leaves = tree.leaves.iter().map(|leaf| (leaf.id.clone(), LeafState::of(leaf))).collect();
        Self { espalier_tree: 1, leaves }
    }
}

impl LeafState {
    fn of(leaf: &Leaf) -> Self {
        let seeds = leaf.seeds.iter().map(|seed| {
            let value = serde_json::to_value(seed).map(without_lines).unwrap_or_default();
            // A conversation is named by all that is said in it before its answer.
            (seed.context.as_deref(), one_line(seed), value)
        });
        let tests = leaf.test.iter().map(|item| {
            let value = serde_json::to_value(item).map(without_lines).unwrap_or_default();
            (item.context.as_deref(), Cow::Borrowed(item.question.as_str()), value)
        });
        let documents = leaf.documents.iter().map(|document| {
            let name = document.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (name, sha256(&document.text))
        });
        let mut settings = match serde_json::to_value(leaf) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        settings.retain(|key, value| !APART.contains(&key.as_str()) && !value.is_null());
        let mut settings: BTreeMap<String, String> =
            settings.into_iter().map(|(key, value)| (key, sha256(&value.to_string()))).collect();
        if let Some(license) = &leaf.license {
            settings.insert("license".to_owned(), sha256(license));
        }
        Self {
            hash: leaf.hash.clone(),
            seeds: by_question(seeds),
            tests: by_question(tests),
            documents: documents.collect(),
            settings,
        }
    }
}

/// Hashes by question. A question that stands with several contexts is numbered by their hashes.
fn by_question<'a>(items: impl Iterator<Item = (Option<&'a str>, Cow<'a, str>, Value)>) -> BTreeMap<String, String> {
    let items: Vec<_> = items.collect();
    let mut times: HashMap<&str, usize> = HashMap::new();
    for (_, question, _) in &items {
        *times.entry(&**question).or_default() += 1;
    }
    let mut result = BTreeMap::new();
    for (context, question, value) in &items {
        let name = match context {
            Some(context) if times[&**question] > 1 => format!("{question} [context {}]", &sha256(context)[..8]),
            _ => question.clone().into_owned(),
        };
        result.insert(name, sha256(&value.to_string()));
    }
    result
}

fn one_line(seed: &Seed) -> Cow<'_, str> {
    if seed.history.is_empty() { seed.script() } else { seed.script().replace('\n', " ").into() }
}

/// Where a thing stands in its file does not change what it says.
fn without_lines(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|key, _| key != "line");
    }
    value
}

fn sha256(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::{Document, Exchange};

    fn leaf(id: &str, seeds: &[(&str, &str)]) -> Leaf {
        let seed = |(index, (question, answer)): (usize, &(&str, &str))| Seed {
            question: (*question).into(),
            answer: (*answer).into(),
            line: index,
            ..Seed::default()
        };
        let seeds = seeds.iter().enumerate().map(seed).collect();
        with_hash(Leaf { id: id.into(), seeds, ..Leaf::default() })
    }

    fn with_hash(mut leaf: Leaf) -> Leaf {
        leaf.hash = crate::hash::content_hash(&leaf);
        leaf
    }

    fn state(leaves: Vec<Leaf>) -> TreeState {
        TreeState::of(&Tree { leaves, ..Tree::default() })
    }

    #[test]
    fn new_gone_moved_and_changed_leaves_are_told_apart() {
        let changed = with_hash(Leaf {
            samples: Some(9),
            documents: vec![Document { path: "x/a.md".into(), text: "other".into() }],
            ..leaf("changed", &[("a", "1"), ("b", "3"), ("d", "4")])
        });
        let before = with_hash(Leaf {
            documents: vec![Document { path: "y/a.md".into(), text: "text".into() }],
            ..leaf("changed", &[("a", "1"), ("b", "2"), ("c", "3")])
        });
        let old =
            state(vec![before, leaf("from", &[("q", "a")]), leaf("gone", &[("x", "y")]), leaf("same", &[("s", "t")])]);
        let new =
            state(vec![changed, leaf("to", &[("q", "a")]), leaf("new", &[("z", "y")]), leaf("same", &[("s", "t")])]);
        let found = TreeDifference::between(&old, &new);
        let part = |added: &[&str], removed: &[&str], changed: &[&str]| PartDifference {
            added: added.iter().map(ToString::to_string).collect(),
            removed: removed.iter().map(ToString::to_string).collect(),
            changed: changed.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(
            found,
            TreeDifference {
                new: vec!["new".into()],
                gone: vec!["gone".into()],
                moved: vec![("from".into(), "to".into())],
                changed: vec![LeafDifference {
                    id: "changed".into(),
                    seeds: part(&["d"], &["c"], &["b"]),
                    tests: PartDifference::default(),
                    documents: part(&[], &[], &["a.md"]),
                    settings: part(&["samples"], &[], &[]),
                }],
            }
        );
        assert!(TreeDifference::between(&old, &old).is_empty());
    }

    #[test]
    fn conversations_that_end_alike_are_told_apart() {
        let conversation = |user: &str, assistant: &str| Seed {
            history: vec![Exchange { user: user.into(), assistant: assistant.into() }],
            question: "And why?".into(),
            answer: "So.".into(),
            ..Seed::default()
        };
        let of =
            |seeds: &[Seed]| state(vec![with_hash(Leaf { id: "x".into(), seeds: seeds.to_vec(), ..Leaf::default() })]);
        let [one, other, changed] = [("Up?", "Yes."), ("Down?", "No."), ("Down?", "Never.")]
            .map(|(user, assistant)| conversation(user, assistant));
        let found = TreeDifference::between(&of(&[one.clone(), other]), &of(&[one, changed]));
        let seeds = &found.changed[0].seeds;
        assert_eq!(seeds.added, ["User: Down? Assistant: Never. User: And why?"]);
        assert_eq!(seeds.removed, ["User: Down? Assistant: No. User: And why?"]);
    }

    #[test]
    fn a_state_is_the_same_after_a_file() {
        let before = state(vec![leaf("a", &[("q", "a")])]);
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<TreeState>(&text).unwrap(), before);
    }
}
