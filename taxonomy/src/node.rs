//! YAML as a tree of values that know where they stand.
//!
//! serde's derived readers stop at the first error; a tree of nodes lets us report them all.

use crate::leaf::Place;

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number, or a whole one that `i64` does not hold.
    Float(f64),
    /// A day or a moment, as it is written: only YAML 1.1 knows such values, and only strict reading reads it.
    Date(String),
    /// A text.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with their values, in the order of the file.
    Mapping(Vec<(Key, Node)>),
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub place: Place,
}

/// A key with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it begins.
    pub place: Place,
}

/// How words without quotes are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// YAML 1.2: `yes`, `on` and days are texts.
    #[default]
    Yaml12,
    /// YAML 1.1 as `PyYAML` reads it, which `InstructLab` uses: `yes` is a truth value, a day is a date, `1e3` is a text.
    Yaml11,
    /// Text wherever one of the two reads text.
    Lenient,
}

impl Value {
    /// What it is, with an article.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Date(_) => "a date",
            Self::Text(_) => "text",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl Node {
    /// The same value in JSON, for parts that are JSON by nature (a schema).
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Date(value) | Value::Text(value) => value.clone().into(),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect(),
        }
    }

    /// Values in it and bytes of their texts: what a copy of it costs.
    pub(crate) fn size(&self) -> usize {
        match &self.value {
            Value::Text(text) | Value::Date(text) => 1 + text.len(),
            Value::Sequence(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Value::Mapping(entries) => {
                1 + entries.iter().map(|(key, node)| key.name.len() + node.size()).sum::<usize>()
            }
            _ => 1,
        }
    }
}
