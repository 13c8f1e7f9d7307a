//! A YAML file of a task as entries that know where they stand, with what it includes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use espalier_taxonomy::Place;
use espalier_taxonomy::yaml::{Node, Value as Yaml, distance, parse_tagged};
use serde_json::{Map, Value};

use crate::error::EvalError;

/// A text of YAML with its name.
#[derive(Debug)]
pub(crate) struct Source {
    /// Names the file in messages.
    pub(crate) path: PathBuf,
    /// Values that are functions.
    functions: HashSet<(usize, usize)>,
}

/// A value of a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) place: Place,
    pub(crate) node: Node,
    pub(crate) source: Rc<Source>,
}

/// The keys of a mapping.
pub(crate) type Entries = Vec<Entry>;

/// Marks a function in a value: no YAML key of a task begins so.
pub(crate) const FUNCTION: &str = "!function";

impl Source {
    /// The entries of a text; includes are not followed.
    pub(crate) fn read(path: &Path, text: &str) -> Result<Entries, EvalError> {
        let at = |place: Place, problem: String| EvalError::TaskFile {
            path: path.to_owned(),
            line: place.line,
            column: place.column,
            problem,
        };
        let (root, tagged) = parse_tagged(text).map_err(|error| at(error.place, error.message))?;
        let mut functions = HashSet::new();
        for (place, tag) in tagged {
            if tag != FUNCTION {
                return Err(at(place, format!("the tag {tag} means nothing here; only `!function NAME` does")));
            }
            functions.insert((place.line, place.column));
        }
        let source = Rc::new(Self { path: path.to_owned(), functions });
        let Yaml::Mapping(entries) = root.value else {
            return Err(at(
                root.place,
                format!("a task is a mapping of keys to values, this is {}", root.value.kind()),
            ));
        };
        Ok(entries
            .into_iter()
            .map(|(key, node)| Entry { key: key.name, place: key.place, node, source: Rc::clone(&source) })
            .collect())
    }

    fn is_function(&self, node: &Node) -> bool {
        self.functions.contains(&(node.place.line, node.place.column))
    }

    fn json(&self, node: &Node) -> Value {
        match &node.value {
            Yaml::Text(name) if self.is_function(node) => {
                Value::Object(Map::from_iter([(FUNCTION.to_owned(), Value::String(name.clone()))]))
            }
            Yaml::Sequence(items) => items.iter().map(|item| self.json(item)).collect(),
            Yaml::Mapping(entries) => {
                Value::Object(entries.iter().map(|(key, node)| (key.name.clone(), self.json(node))).collect())
            }
            _ => node.to_json(),
        }
    }
}

impl Entry {
    /// An error at the value.
    pub(crate) fn error(&self, problem: impl Into<String>) -> EvalError {
        self.error_at(self.node.place, problem)
    }

    /// An error at the key.
    pub(crate) fn key_error(&self, problem: impl Into<String>) -> EvalError {
        self.error_at(self.place, problem)
    }

    fn error_at(&self, place: Place, problem: impl Into<String>) -> EvalError {
        EvalError::TaskFile {
            path: self.source.path.clone(),
            line: place.line,
            column: place.column,
            problem: problem.into(),
        }
    }

    /// The value as JSON; a function is `{"!function": NAME}`.
    pub(crate) fn json(&self) -> Value {
        self.source.json(&self.node)
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node.value == Yaml::Null
    }

    /// The function that the value names.
    pub(crate) fn function(&self) -> Option<&str> {
        match &self.node.value {
            Yaml::Text(name) if self.source.is_function(&self.node) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Result<String, EvalError> {
        match &self.node.value {
            Yaml::Text(text) if self.function().is_none() => Ok(text.clone()),
            Yaml::Date(text) => Ok(text.clone()),
            Yaml::Integer(number) => Ok(number.to_string()),
            Yaml::Float(number) => Ok(number.to_string()),
            other => Err(self.error(format!("`{}` is a text, this is {}", self.key, other.kind()))),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool, EvalError> {
        match self.node.value {
            Yaml::Bool(value) => Ok(value),
            ref other => Err(self.error(format!("`{}` is true or false, this is {}", self.key, other.kind()))),
        }
    }

    pub(crate) fn count(&self) -> Result<usize, EvalError> {
        let wrong = |what: &str| self.error(format!("`{}` is a whole number, this is {what}", self.key));
        match self.node.value {
            Yaml::Integer(number) => usize::try_from(number).map_err(|_| wrong(&number.to_string())),
            ref other => Err(wrong(other.kind())),
        }
    }

    pub(crate) fn number(&self) -> Result<f64, EvalError> {
        match self.node.value {
            Yaml::Integer(number) => Ok(number as f64),
            Yaml::Float(number) => Ok(number),
            // YAML 1.1 reads `1e-3` as a text.
            Yaml::Text(ref text) if text.parse::<f64>().is_ok() => Ok(text.parse().unwrap_or_default()),
            ref other => Err(self.error(format!("`{}` is a number, this is {}", self.key, other.kind()))),
        }
    }

    /// One text, or a list of texts.
    pub(crate) fn texts(&self) -> Result<Vec<String>, EvalError> {
        match &self.node.value {
            Yaml::Sequence(_) => self.items().iter().map(Self::text).collect(),
            Yaml::Null => Ok(Vec::new()),
            _ => Ok(vec![self.text()?]),
        }
    }

    /// The items of a list, each under the key of the list; one value is a list of it.
    pub(crate) fn items(&self) -> Vec<Self> {
        let item = |node: &Node| Self { node: node.clone(), place: node.place, ..self.clone() };
        match &self.node.value {
            Yaml::Sequence(items) => items.iter().map(item).collect(),
            _ => vec![self.clone()],
        }
    }

    /// The entries of a mapping.
    pub(crate) fn entries(&self) -> Result<Entries, EvalError> {
        match &self.node.value {
            Yaml::Mapping(entries) => Ok(entries
                .iter()
                .map(|(key, node)| Self {
                    key: key.name.clone(),
                    place: key.place,
                    node: node.clone(),
                    source: Rc::clone(&self.source),
                })
                .collect()),
            other => Err(self.error(format!("`{}` is a mapping, this is {}", self.key, other.kind()))),
        }
    }

    /// The refusal of a key that is not among the known ones.
    pub(crate) fn unknown(&self, known: &[&str]) -> EvalError {
        let near = known.iter().map(|word| (distance(&self.key, word), word)).min();
        let hint = match near {
            Some((edits, word)) if edits <= (self.key.chars().count() / 3).clamp(1, 3) => {
                format!("did you mean `{word}`?")
            }
            _ => format!("known keys: {}", known.join(", ")),
        };
        self.key_error(format!("unknown key `{}`; {hint}", self.key))
    }
}

/// `over` on top of `under`: a key of `over` takes the place of the one below.
pub(crate) fn overlay(under: Entries, over: Entries) -> Entries {
    let mut all = under;
    for entry in over {
        match all.iter_mut().find(|below| below.key == entry.key) {
            Some(below) => *below = entry,
            None => all.push(entry),
        }
    }
    all
}
