//! From YAML text to a tree of values with places.
//!
//! Built on the parser's events: copies that aliases make are bounded, and keys that stand twice, tags and the dialect of words
//! without quotes are the caller's to judge.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Scanner, Span, StrInput, Tag, TokenType};

use crate::leaf::Place;
use crate::node::{Dialect, Key, Node, Value};
use crate::scalar;

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

/// A document with what a reader may refuse in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlFile {
    /// The value; of keys that stand twice in one mapping the last one counts.
    pub(crate) root: Node,
    /// Keys that stood before in their mapping.
    pub(crate) repeated: Vec<Key>,
    /// Values with a tag that is not of YAML's own types, and the tag.
    pub(crate) tagged: Vec<(Place, String)>,
}

/// Reads one YAML document; an empty one is `Null`.
///
/// # Errors
/// The first thing that is not YAML; a key that stands twice.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let file = parse_file(text, Dialect::Yaml12)?;
    match file.repeated.into_iter().next() {
        Some(Key { name, place }) => Err(SyntaxError { place, message: format!("duplicate mapping key: {name}") }),
        None => Ok(file.root),
    }
}

/// Reads one YAML document as `PyYAML` does, for files that belong to programs in Python. Beside the value: the places of values
/// that carry a tag of their own (`!function utils.f`), each with its tag; such a value is its text.
///
/// # Errors
/// The first thing that is not YAML; a key that stands twice.
pub fn parse_tagged(text: &str) -> Result<(Node, Vec<(Place, String)>), SyntaxError> {
    let file = parse_file(text, Dialect::Yaml11)?;
    match file.repeated.into_iter().next() {
        Some(Key { name, place }) => Err(SyntaxError { place, message: format!("duplicate mapping key: {name}") }),
        None => Ok((file.root, file.tagged)),
    }
}

/// Reads one YAML document in a dialect.
pub(crate) fn parse_file(text: &str, dialect: Dialect) -> Result<YamlFile, SyntaxError> {
    build(text, dialect).or_else(|error| match without_tabs_in_quotes(text) {
        Some(text) => build(&text, dialect).map_err(|_| error),
        None => Err(error),
    })
}

/// The text with blanks in place of tabs that begin lines within quotes: YAML 1.2 forbids such tabs, older readers suffer
/// them, and the folding of lines drops them.
fn without_tabs_in_quotes(text: &str) -> Option<String> {
    let is_indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    if !text.lines().any(is_indented_by_tab) {
        return None;
    }
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let blank: Vec<String> = text.split('\n').map(|line| " ".repeat(indent(line)) + &line[indent(line)..]).collect();
    let blank = blank.join("\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    let mended: Vec<&str> = blank.split('\n').collect();
    for token in Scanner::new(StrInput::new(&blank)).map_while(Result::ok) {
        let quoted =
            matches!(token.token_type(), TokenType::Scalar(ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted, _));
        if quoted {
            let inner = token.span().start.line()..token.span().end.line();
            lines[inner.clone()].copy_from_slice(&mended[inner]);
        }
    }
    Some(lines.join("\n"))
}

fn build(text: &str, dialect: Dialect) -> Result<YamlFile, SyntaxError> {
    let mut builder = Builder { dialect, ..Builder::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| SyntaxError { place: place(error.marker()), message: strip_place(&error.to_string()) })?;
        builder.event(event, span)?;
    }
    let root = builder.root.unwrap_or(Node { value: Value::Null, place: Place { line: 1, column: 1 } });
    Ok(YamlFile { root, repeated: builder.repeated, tagged: builder.tagged })
}

/// Removes a ` at byte 3 line 3 column 5` or the like.
fn strip_place(message: &str) -> String {
    let end = [" at byte ", " at char ", " at line "].iter().filter_map(|words| message.find(words)).min();
    message[..end.unwrap_or(message.len())].trim().to_owned()
}

/// A tag as it stands in the file.
fn written(tag: &Tag) -> String {
    let (handle, suffix) = tag.original_parts();
    [handle, suffix].concat()
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// What the copies that aliases make may cost together, in values and bytes: ten times the largest honest use, and what is
/// held in an instant.
const ALIAS_BUDGET: usize = 1 << 20;

/// A collection that is not closed yet.
#[derive(Debug)]
struct Open {
    place: Place,
    anchor: usize,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    Sequence(Vec<Node>),
    Mapping(OpenMapping),
}

#[derive(Debug, Default)]
struct OpenMapping {
    entries: Vec<(Key, Node)>,
    /// Where each key stands in `entries`.
    indices: HashMap<String, usize>,
    /// What `<<` names.
    merged: Vec<Node>,
    /// The key whose value comes next.
    key: Option<PendingKey>,
}

#[derive(Debug)]
enum PendingKey {
    Named(Key),
    /// `<<`: the entries of another mapping.
    Merge,
}

#[derive(Debug, Default)]
struct Builder {
    dialect: Dialect,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    root: Option<Node>,
    documents: usize,
    repeated: Vec<Key>,
    tagged: Vec<(Place, String)>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let start = place(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(SyntaxError { place: start, message: "a second document begins here".to_owned() });
                }
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(SyntaxError {
                        place: start,
                        message: "an alias stands inside its own value".to_owned(),
                    });
                };
                self.charge(&node, start)?;
                self.add(node)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let merge = plain && tag.is_none() && text == "<<";
                let node = Node { value: self.scalar(&text, plain, tag.as_deref(), start), place: start };
                self.define(anchor, &node)?;
                match self.awaits_key() {
                    Some(key) if merge => *key = Some(PendingKey::Merge),
                    Some(key) => *key = Some(PendingKey::Named(Key { name: text.into_owned(), place: start })),
                    None => self.add(node)?,
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.note_tag(tag.as_deref(), "seq", start);
                self.open.push(Open { place: start, anchor, entries: Entries::Sequence(Vec::new()) });
            }
            Event::MappingStart(_, anchor, tag) => {
                self.note_tag(tag.as_deref(), "map", start);
                self.open.push(Open { place: start, anchor, entries: Entries::Mapping(OpenMapping::default()) });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            _ => {}
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, plain: bool, tag: Option<&Tag>, start: Place) -> Value {
        match tag.map(|tag| tag.core_suffix().unwrap_or("")) {
            None if plain => scalar::resolve(text, self.dialect),
            None | Some("str") => Value::Text(text.to_owned()),
            Some("int" | "float" | "bool" | "null") => scalar::resolve(text, self.dialect),
            // `!` alone says that a word is a text.
            Some(_) if tag.is_some_and(|tag| tag.parts() == ("", "!") || tag.parts() == ("!", "")) => {
                Value::Text(text.to_owned())
            }
            Some(_) => {
                self.tagged.extend(tag.map(|tag| (start, written(tag))));
                Value::Text(text.to_owned())
            }
        }
    }

    fn note_tag(&mut self, tag: Option<&Tag>, own: &str, start: Place) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(own)) {
            self.tagged.push((start, written(tag)));
        }
    }

    fn charge(&mut self, node: &Node, place: Place) -> Result<(), SyntaxError> {
        self.copied += node.size();
        if self.copied > ALIAS_BUDGET {
            return Err(SyntaxError {
                place,
                message: "the aliases of this file unfold to more than a leaf".to_owned(),
            });
        }
        Ok(())
    }

    fn define(&mut self, anchor: usize, node: &Node) -> Result<(), SyntaxError> {
        if anchor != 0 {
            self.charge(node, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// The place for a key, where one comes next.
    fn awaits_key(&mut self) -> Option<&mut Option<PendingKey>> {
        match self.open.last_mut() {
            Some(Open { entries: Entries::Mapping(mapping), .. }) if mapping.key.is_none() => Some(&mut mapping.key),
            _ => None,
        }
    }

    fn add(&mut self, node: Node) -> Result<(), SyntaxError> {
        match self.open.last_mut().map(|open| &mut open.entries) {
            None => self.root = Some(node),
            Some(Entries::Sequence(items)) => items.push(node),
            Some(Entries::Mapping(mapping)) => match mapping.key.take() {
                Some(PendingKey::Merge) => mapping.merged.push(node),
                Some(PendingKey::Named(key)) => {
                    if mapping.indices.contains_key(&key.name) {
                        self.repeated.push(key.clone());
                    }
                    mapping.put(key, node);
                }
                // An alias or a collection in the place of a key.
                None => match node.value {
                    Value::Text(name) => mapping.key = Some(PendingKey::Named(Key { name, place: node.place })),
                    other => {
                        let message = format!("a key is a word, this is {}", other.kind());
                        return Err(SyntaxError { place: node.place, message });
                    }
                },
            },
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(Open { place, anchor, entries }) = self.open.pop() else { return Ok(()) };
        let value = match entries {
            Entries::Sequence(items) => Value::Sequence(items),
            Entries::Mapping(mut mapping) => {
                for node in std::mem::take(&mut mapping.merged) {
                    mapping.merge(node)?;
                }
                Value::Mapping(mapping.entries)
            }
        };
        let node = Node { value, place };
        self.define(anchor, &node)?;
        self.add(node)
    }
}

impl OpenMapping {
    /// Adds an entry, in place of an earlier one of the same name.
    fn put(&mut self, key: Key, node: Node) {
        if let Some(&index) = self.indices.get(&key.name) {
            self.entries[index] = (key, node);
        } else {
            self.indices.insert(key.name.clone(), self.entries.len());
            self.entries.push((key, node));
        }
    }

    /// Takes over what `<<` names: keys that are there already stay.
    fn merge(&mut self, node: Node) -> Result<(), SyntaxError> {
        match node.value {
            Value::Mapping(others) => {
                for (key, node) in others {
                    if !self.indices.contains_key(&key.name) {
                        self.put(key, node);
                    }
                }
                Ok(())
            }
            Value::Sequence(items) if items.iter().all(|item| matches!(item.value, Value::Mapping(_))) => {
                items.into_iter().try_for_each(|item| self.merge(item))
            }
            other => Err(SyntaxError {
                place: node.place,
                message: format!("`<<` takes over a mapping, this is {}", other.kind()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_and_values_know_their_place() {
        let tree = parse("a: 1\nb:\n  - x: yes\n    y: |\n      long\n  - 2.5\n").unwrap();
        let Value::Mapping(entries) = &tree.value else { panic!("{tree:?}") };
        assert_eq!(entries[0].0.place, Place { line: 1, column: 1 });
        assert_eq!(entries[0].1.place, Place { line: 1, column: 4 });
        let Value::Sequence(items) = &entries[1].1.value else { panic!("{tree:?}") };
        let Value::Mapping(inner) = &items[0].value else { panic!("{tree:?}") };
        assert_eq!(inner[0].1.value, Value::Text("yes".into()));
        assert_eq!(inner[1].0, Key { name: "y".into(), place: Place { line: 4, column: 5 } });
        assert_eq!(inner[1].1.value, Value::Text("long\n".into()));
        assert_eq!(items[1].value, Value::Float(2.5));
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.place.line >= 2, "{error:?}");
        assert!(!error.message.contains(" at "), "{error:?}");
        let error = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(error.place.line, 2, "{error:?}");
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap_err().place.line, 2);
    }

    #[test]
    fn aliases_and_merged_mappings_are_copies() {
        let tree = parse("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\n").unwrap();
        assert_eq!(
            tree.to_json(),
            serde_json::json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"y": 3, "x": 1}})
        );
        assert!(parse("a: &a [*a]\n").is_err());
        assert!(parse("<<: 3\n").is_err());
    }

    #[test]
    fn aliases_cannot_blow_up_the_memory() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            text = format!("{text}a{level}: &a{level} [{inner}]\n");
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(100_000)] {
            assert!(parse(&text).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-a-z0-9:{}\\[\\]&*!|>%@'\"#?, \n\t\\\\]{0,120}") {
            let _ = parse(&text);
        }
    }
}
