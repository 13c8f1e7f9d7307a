//! From the text of a `qna.yaml` to a [`Leaf`].

mod document;
pub(crate) mod fields;
mod instructlab;
mod own;
mod questions;
mod seeds;
mod test_items;

use std::fs;
use std::path::Path;

use crate::attribution;
use crate::diagnostic::{Diagnostic, Severity};
use crate::hash::content_hash;
use crate::leaf::{Leaf, LeafKind, LeafVersion, Place, Seed};
use crate::node::{self, Value};
use fields::Fields;

/// A leaf's file larger than this is a mistake, not a leaf.
const MAX_BYTES: u64 = 16 << 20;

/// Collects findings about one file.
#[derive(Debug)]
pub struct Report<'a> {
    file: &'a Path,
    findings: &'a mut Vec<Diagnostic>,
    failed: bool,
}

impl<'a> Report<'a> {
    /// Collects findings about `file` into `findings`.
    pub fn new(file: &'a Path, findings: &'a mut Vec<Diagnostic>) -> Self {
        Self { file, findings, failed: false }
    }

    /// Whether an error was among the findings.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Adds an error.
    pub fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.failed = true;
        self.push(Severity::Error, place, message.into(), hint.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), hint.into());
    }

    /// Adds a note.
    pub fn note(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Note, place, message.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, place: Place, message: String, hint: String) {
        let Place { line, column } = place;
        self.findings.push(Diagnostic::new(severity, self.file, line, column, message).with_hint(hint));
    }
}

const START: Place = Place { line: 1, column: 1 };

/// Reads one leaf; `None` after an error (which is among the findings), and for an empty file (a warning).
pub(crate) fn leaf(id: &str, file: &Path, findings: &mut Vec<Diagnostic>) -> Option<Leaf> {
    let mut report = Report::new(file, findings);
    if let Some(name) = file.file_name().and_then(|name| name.to_str()).filter(|name| *name != "qna.yaml") {
        report.warning(
            START,
            format!("{name} is not the name of a leaf's file"),
            "rename it to qna.yaml: in a folder it would not be found",
        );
    }
    let text = read_text(file, &mut report)?;
    let root = match node::parse(&text) {
        Ok(root) => root,
        Err(error) => {
            let hint = syntax_hint(&error.message, text.lines().nth(error.place.line.saturating_sub(1)));
            report.error(error.place, format!("this is not YAML: {}", error.message), hint);
            return None;
        }
    };
    let entries = match root.value {
        Value::Null => {
            report.warning(START, "the file is empty and is skipped", "write a leaf into it, or delete it");
            return None;
        }
        Value::Mapping(entries) => entries,
        other => {
            report.error(
                root.place,
                format!("a leaf is a mapping of keys to values, this is {}", other.kind()),
                "begin with `espalier: 1` and `created_by: YOUR_NAME`",
            );
            return None;
        }
    };
    let mut fields = Fields::new(entries, root.place, "a leaf");
    let version = version(&mut fields, &mut report)?;
    let mut leaf = Leaf { id: id.to_owned(), file: file.to_path_buf(), version, ..Leaf::default() };
    match version {
        LeafVersion::Espalier1 => own::read(&mut fields, &mut leaf, &mut report),
        _ => instructlab::read(&mut fields, &mut leaf, &mut report),
    }
    fields.refuse_the_rest(&mut report);
    if report.failed {
        return None;
    }
    if let Ok(text) = fs::read_to_string(file.with_file_name("attribution.txt")) {
        leaf.license = attribution::license(&text);
    }
    leaf.hash = content_hash(&leaf);
    Some(leaf)
}

/// The text of a file with `\n` as line end and without a byte order mark.
fn read_text(file: &Path, report: &mut Report<'_>) -> Option<String> {
    let bytes = fs::metadata(file).and_then(|metadata| {
        if metadata.len() > MAX_BYTES {
            return Err(std::io::Error::other(format!("it has {} bytes, more than {MAX_BYTES}", metadata.len())));
        }
        fs::read(file)
    });
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            report.error(START, format!("cannot read the file: {error}"), "check that it is there and readable");
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(text.trim_start_matches('\u{feff}').replace("\r\n", "\n")),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|&byte| byte == b'\n').count();
            let column = 1 + valid.iter().rev().take_while(|&&byte| byte != b'\n').count();
            report.error(Place { line, column }, "the file is not UTF-8 here", "save it in the encoding UTF-8");
            None
        }
    }
}

fn version(fields: &mut Fields, report: &mut Report<'_>) -> Option<LeafVersion> {
    let own = fields.take("espalier");
    let version = fields.take("version");
    match (own, version) {
        (Some((key, _)), Some(_)) => {
            report.error(
                key.place,
                "`espalier` and `version` stand together",
                "keep `espalier: 1` for our own form, or `version: 3` for InstructLab's",
            );
            None
        }
        (Some((_, node)), None) if node.value == Value::Integer(1) => Some(LeafVersion::Espalier1),
        (Some((_, node)), None) => {
            report.error(node.place, "this version of our form is not known", "write `espalier: 1`");
            None
        }
        (None, None) => Some(LeafVersion::V1),
        (None, Some((_, node))) => match node.value {
            Value::Integer(1) => Some(LeafVersion::V1),
            Value::Integer(2) => Some(LeafVersion::V2),
            Value::Integer(3) => Some(LeafVersion::V3),
            _ => {
                report.error(
                    node.place,
                    "`version` is 1, 2 or 3, a number without quotes",
                    "write `version: 3`, or `espalier: 1` for our own form",
                );
                None
            }
        },
    }
}

/// Skills whose seeds have contexts are grounded; a mixture is one kind with a gap.
fn skill_kind(seeds: &[Seed], report: &mut Report<'_>) -> LeafKind {
    let grounded = seeds.iter().filter(|seed| seed.context.is_some()).count();
    if grounded == 0 {
        return LeafKind::FreeformSkill;
    }
    if let Some(seed) = seeds.iter().find(|seed| seed.context.is_none()) {
        report.warning(
            Place { line: seed.line, column: 1 },
            format!("{grounded} of {} seed examples have a context, this one has none", seeds.len()),
            "give every example a context, or make two leaves of it",
        );
    }
    LeafKind::GroundedSkill
}

/// What most often causes a YAML error with such words, on such a line.
fn syntax_hint(message: &str, line: Option<&str>) -> String {
    let message = message.to_lowercase();
    if line.is_some_and(|line| line.starts_with('\t') || line.trim_start_matches(' ').starts_with('\t')) {
        return "indent with spaces: YAML allows no tabs there".to_owned();
    }
    if message.contains("duplicate") {
        return "a key may stand once in a mapping: remove or rename the second one".to_owned();
    }
    if message.contains("alias") || message.contains("anchor") || message.contains("budget") {
        return "write the value out in place of `*name`, or put the text in quotes".to_owned();
    }
    if line.is_some_and(|line| line.matches(": ").count() > 1 && !line.contains('"') && !line.contains('\'')) {
        return "a text with `: ` in it must stand in quotes".to_owned();
    }
    "look at the indentation here and in the line above, and put texts with `:`, `#`, `[` or `{` in quotes".to_owned()
}
