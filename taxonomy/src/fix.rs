//! Mending what can be mended in a leaf's file without a change of what it says.
//!
//! A file that strict reading accepts is left alone. Every step is kept only if the file still says the same (a step that
//! makes a file readable has nothing to compare with); mending twice changes nothing more.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value as Json;

use crate::layout::{self, Flaw, line_of_text_blocks};
use crate::node::{Dialect, Node, Value};
use crate::parse::parse_file;
use crate::read::{self, Mode};

/// What is wrong with one stretch of lines and how it reads when mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was done.
    pub what: &'static str,
    /// First line that it touches, from 1, as the file was before this change.
    pub line: usize,
    /// The lines as they were; empty for something that no line shows.
    pub before: Vec<String>,
    /// The lines as they are.
    pub after: Vec<String>,
}

/// A mended file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Its text.
    pub text: String,
    /// What was changed, in order.
    pub changes: Vec<Change>,
}

/// A file larger than this is not mended: every step reads it again.
const MAX_BYTES: usize = 1 << 20;

/// Most steps: a file that needs more is not mended to the end in one go.
const MAX_STEPS: usize = 2_000;

/// Mends the content of a leaf's file at `file`, in a tree whose paths stay below `root`; `None` where nothing can be mended.
pub fn mend(file: &Path, root: &Path, content: &[u8]) -> Option<Mended> {
    let leaf = Leaf { file, root };
    let original = std::str::from_utf8(content).ok().filter(|text| text.len() <= MAX_BYTES)?;
    let mut text = read::file::normal(original);
    if leaf.errors(&text, Mode::Strict) == 0 {
        return None;
    }
    let mut changes = Vec::new();
    if text != original {
        let what = if original.starts_with('\u{feff}') { "byte order mark and line ends" } else { "line ends" };
        changes.push(Change { what, line: 1, before: Vec::new(), after: Vec::new() });
    }
    for _ in 0..MAX_STEPS {
        let step = tabs(leaf, &text)
            .or_else(|| version(leaf, &text))
            .or_else(|| trailing_blanks(&text))
            .or_else(|| layout_flaw(&text))
            .or_else(|| repeated_seed(leaf, &text));
        let Some((what, mended)) = step else { break };
        changes.push(change(what, &text, &mended));
        text = mended;
    }
    (!changes.is_empty()).then_some(Mended { text, changes })
}

/// A leaf's file in its tree.
#[derive(Clone, Copy, Debug)]
struct Leaf<'a> {
    file: &'a Path,
    root: &'a Path,
}

impl Leaf<'_> {
    fn errors(self, text: &str, mode: Mode) -> usize {
        read::errors_in(self.file, self.root, text, mode)
    }
}

/// A step: what it does and the text behind it.
type Step = (&'static str, String);

/// What a text says, to every reader; `None` where it cannot be read.
fn meaning(text: &str) -> Option<[Json; 2]> {
    let read = |dialect| parse_file(text, dialect).ok().map(|file| file.root.to_json());
    Some([read(Dialect::Yaml12)?, read(Dialect::Yaml11)?])
}

fn same_meaning(before: &str, after: &str) -> bool {
    meaning(before).is_some_and(|before| meaning(after) == Some(before))
}

/// Tabs in front of lines of a file that they make unreadable, and tabs between words that only some readers take.
fn tabs(leaf: Leaf<'_>, text: &str) -> Option<Step> {
    if meaning(text).is_none() {
        let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
        let spread = |width: usize| {
            let spread = |line: &str| line[..indent(line)].replace('\t', &" ".repeat(width)) + &line[indent(line)..];
            text.split('\n').map(spread).collect::<Vec<_>>().join("\n")
        };
        // The width at which the leaf is whole, or else one at which it can be read.
        let mended = [2, 4, 8].map(spread);
        let whole = mended.iter().find(|mended| leaf.errors(mended, Mode::Lenient) == 0);
        let mended = whole.or_else(|| mended.iter().find(|mended| meaning(mended).is_some()))?;
        return (mended != text).then(|| ("tabs in front of lines become blanks", mended.clone()));
    }
    layout::unreadable(text).into_iter().find_map(|flaw| {
        let offset = offset_of(text, &flaw)?;
        text[offset..].starts_with('\t').then_some(())?;
        let mended = format!("{} {}", &text[..offset], &text[offset + 1..]);
        same_meaning(text, &mended).then_some(("a tab becomes a blank", mended))
    })
}

/// `version: "3"` becomes a number; knowledge of version 3 that names no version gets one.
fn version(leaf: Leaf<'_>, text: &str) -> Option<Step> {
    let root = parse_file(text, Dialect::Yaml12).ok()?.root;
    let Value::Mapping(entries) = &root.value else { return None };
    let entry = |name: &str| entries.iter().find(|(key, _)| key.name == name);
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Some((key, node)) = entry("version") {
        let Value::Text(number) = &node.value else { return None };
        let number = number.trim();
        if !matches!(number, "1" | "2" | "3") || node.place.line != key.place.line {
            return None;
        }
        let line = lines.get_mut(key.place.line - 1)?;
        *line = [format!("'{number}'"), format!("\"{number}\"")]
            .iter()
            .fold(line.clone(), |line, quoted| line.replacen(quoted, number, 1));
        let mended = lines.join("\n");
        let root = parse_file(&mended, Dialect::Yaml12).ok()?.root;
        return (mended != text && root.to_json()["version"].is_u64()).then_some(("the version is a number", mended));
    }
    if entry("espalier").is_some() || !["document", "document_outline"].iter().any(|name| entry(name).is_some()) {
        return None;
    }
    let first = entries.iter().map(|(key, _)| key.place.line).min()?;
    lines.insert(first - 1, "version: 3".to_owned());
    let mended = lines.join("\n");
    (leaf.errors(&mended, Mode::Lenient) == 0).then_some(("the version is named", mended))
}

/// Blanks at the ends of lines, but in block texts, which they are part of.
fn trailing_blanks(text: &str) -> Option<Step> {
    let kept: HashSet<usize> = line_of_text_blocks(text);
    let mended: Vec<&str> = text
        .split('\n')
        .enumerate()
        .map(|(index, line)| if kept.contains(&(index + 1)) { line } else { line.trim_end_matches([' ', '\t']) })
        .collect();
    let mended = mended.join("\n");
    (mended != text && same_meaning(text, &mended)).then_some(("blanks at the ends of lines", mended))
}

/// The first flaw of the layout that can be mended.
fn layout_flaw(text: &str) -> Option<Step> {
    let flaws = layout::lint(text);
    flaws.iter().find_map(|flaw| {
        let (what, mended) = mend_flaw(text, flaw)?;
        // The last line's own end is part of a block text: what it says then ends like every other block text.
        let last = flaw.rule == "new-line-at-end-of-file" && meaning(&mended).is_some();
        (mended != text && (last || same_meaning(text, &mended)) && layout::lint(&mended).len() < flaws.len())
            .then_some((what, mended))
    })
}

fn mend_flaw(text: &str, flaw: &Flaw) -> Option<Step> {
    let offset = offset_of(text, flaw)?;
    let (before, after) = text.split_at(offset);
    let blanks = |count: usize| {
        format!("{}{}{}", before.trim_end_matches(' '), " ".repeat(count), after.trim_start_matches(' '))
    };
    match flaw.rule {
        "new-line-at-end-of-file" => Some(("the last line ends", format!("{text}\n"))),
        "empty-lines" => {
            let mut lines: Vec<&str> = text.split('\n').collect();
            let last = flaw.place.line;
            let run = lines[..last].iter().rev().take_while(|line| line.is_empty()).count();
            let ends = last + 1 >= lines.len();
            let kept = if run == last || ends { 0 } else { 2 };
            lines.drain(last - run + kept..last);
            Some(("empty lines", lines.join("\n")))
        }
        "colons" | "hyphens" => {
            Some(("blanks around a mark", if after.starts_with(':') { blanks(0) } else { blanks(1) }))
        }
        "commas" => Some(("blanks around a comma", if after.starts_with(',') { blanks(0) } else { blanks(1) })),
        "braces" | "brackets" => Some(("blanks inside a bracket", blanks(1))),
        _ => None,
    }
}

/// The first seed example that repeats an earlier one, where enough remain.
fn repeated_seed(leaf: Leaf<'_>, text: &str) -> Option<Step> {
    let root = parse_file(text, Dialect::Yaml12).ok()?.root;
    let json = root.to_json();
    let Value::Mapping(entries) = root.value else { return None };
    let own = entries.iter().any(|(key, _)| key.name == "espalier");
    let minimum = if own { 3 } else { 5 };
    let seeds = entries.into_iter().find(|(key, _)| key.name == "seed_examples")?.1;
    let Value::Sequence(items) = seeds.value else { return None };
    if items.len() <= minimum {
        return None;
    }
    let index = (1..items.len()).find(|&index| {
        let item = items[index].to_json();
        items[..index].iter().any(|other| other.to_json() == item)
    })?;
    let mended = without_item(text, &items, index)?;
    let mut expected = json;
    expected["seed_examples"].as_array_mut()?.remove(index);
    let same = parse_file(&mended, Dialect::Yaml12).ok()?.root.to_json() == expected;
    (same && leaf.errors(&mended, Mode::Strict) < leaf.errors(text, Mode::Strict))
        .then_some(("a seed example that stands twice", mended))
}

/// The text without the lines of an item of a block list.
fn without_item(text: &str, items: &[Node], index: usize) -> Option<String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let first = items[index].place.line - 1;
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let column = indent(lines.get(first)?);
    if !lines[first].trim_start().starts_with('-') {
        return None;
    }
    let end = lines[first + 1..]
        .iter()
        .position(|line| !line.trim().is_empty() && indent(line) <= column)
        .map_or(lines.len() - usize::from(lines.last() == Some(&"")), |at| first + 1 + at);
    Some([&lines[..first], &lines[end..]].concat().join("\n"))
}

fn offset_of(text: &str, flaw: &Flaw) -> Option<usize> {
    let start: usize = text.split_inclusive('\n').take(flaw.place.line - 1).map(str::len).sum();
    let column = text[start..].char_indices().map(|(at, _)| at).nth(flaw.place.column - 1);
    Some(column.map_or(text.len(), |column| start + column))
}

/// The lines that two texts differ in, without what they begin and end with alike.
fn change(what: &'static str, before: &str, after: &str) -> Change {
    let old: Vec<&str> = before.split('\n').collect();
    let new: Vec<&str> = after.split('\n').collect();
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let most = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(old, new)| old == new).count();
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    Change {
        what,
        line: start + 1,
        before: owned(&old[start..old.len() - end]),
        after: owned(&new[start..new.len() - end]),
    }
}
