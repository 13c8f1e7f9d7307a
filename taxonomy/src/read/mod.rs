//! From the text of a `qna.yaml` to a [`Leaf`].

mod document;
pub(crate) mod fields;
pub(crate) mod file;
mod files;
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
use crate::layout;
use crate::leaf::{Leaf, LeafKind, LeafVersion, Place, Seed};
use crate::node::{Dialect, Value};
use crate::scalar;
use fields::Fields;

/// How much is forgiven in files of `InstructLab`'s forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What changes no meaning is suffered: blanks at the ends of lines, indentation, the name `qna.yml`, words that only
    /// YAML 1.1 reads as something else than text.
    #[default]
    Lenient,
    /// Accepts and refuses what `InstructLab`'s own reader does, `yamllint` included.
    Strict,
}

/// An `attribution.txt` larger than this is something else.
const MAX_ATTRIBUTION_BYTES: u64 = 1 << 20;

/// Most findings that are kept of one file.
const MAX_FINDINGS: usize = 200;

/// Collects findings about one file.
#[derive(Debug)]
pub struct Report<'a> {
    file: &'a Path,
    findings: &'a mut Vec<Diagnostic>,
    failed: bool,
    /// How many findings there were.
    count: usize,
}

impl<'a> Report<'a> {
    /// Collects findings about `file` into `findings`.
    pub fn new(file: &'a Path, findings: &'a mut Vec<Diagnostic>) -> Self {
        Self { file, findings, failed: false, count: 0 }
    }

    /// The file that the findings are about.
    pub fn file(&self) -> &Path {
        self.file
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
        self.count += 1;
        let Place { line, column } = place;
        if self.count > MAX_FINDINGS {
            if self.count == MAX_FINDINGS + 1 {
                let message = format!("more than {MAX_FINDINGS} findings in this file: the rest is not shown");
                self.findings.push(Diagnostic::new(Severity::Note, self.file, line, column, message));
            }
            return;
        }
        self.findings.push(Diagnostic::new(severity, self.file, line, column, message).with_hint(hint));
    }
}

const START: Place = Place { line: 1, column: 1 };

/// Reads one leaf; `None` after an error (which is among the findings), and for an empty file (a warning).
pub(crate) fn leaf(id: &str, file: &Path, root: &Path, mode: Mode, findings: &mut Vec<Diagnostic>) -> Option<Leaf> {
    let mut report = Report::new(file, findings);
    check_name(file, mode, &mut report);
    let text = file::text(file, &mut report)?;
    leaf_of_text(id, file, root, &text, mode, &mut report)
}

/// How many errors a leaf's file would have with this text.
pub(crate) fn errors_in(file: &Path, root: &Path, text: &str, mode: Mode) -> usize {
    let mut findings = Vec::new();
    leaf_of_text("", file, root, text, mode, &mut Report::new(file, &mut findings));
    findings.iter().filter(|finding| finding.severity == Severity::Error).count()
}

/// Reads a leaf's file as if it had this text; `None` for one that is empty.
pub(crate) fn leaf_of(file: &Path, root: &Path, text: &str, mode: Mode) -> Result<Option<Leaf>, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let mut report = Report::new(file, &mut findings);
    let leaf = leaf_of_text("", file, root, text, mode, &mut report);
    if report.failed { Err(findings) } else { Ok(leaf) }
}

fn leaf_of_text(id: &str, file: &Path, root: &Path, text: &str, mode: Mode, report: &mut Report<'_>) -> Option<Leaf> {
    let mut fields = file::fields(text, mode, report)?;
    let version = version(&mut fields, report)?;
    let mut leaf = Leaf { id: id.to_owned(), file: file.to_path_buf(), version, ..Leaf::default() };
    if mode == Mode::Strict && matches!(version, LeafVersion::V2 | LeafVersion::V3) {
        for layout::Flaw { place, message, .. } in layout::lint(text) {
            report.error(place, message, "`pipeline taxonomy validate --fix` mends most of this");
        }
    }
    match version {
        LeafVersion::Espalier1 => own::read(&mut fields, root, &mut leaf, report),
        _ => instructlab::read(&mut fields, &mut leaf, report),
    }
    fields.refuse_the_rest(report);
    if report.failed {
        return None;
    }
    leaf.works = works(file);
    leaf.license = attribution::license(&leaf.works);
    leaf.hash = content_hash(&leaf);
    Some(leaf)
}

/// The works that `attribution.txt` names; a file that is too large to be one names none.
fn works(file: &Path) -> Vec<attribution::Work> {
    let file = file.with_file_name(attribution::FILE);
    let fits = fs::metadata(&file).is_ok_and(|metadata| metadata.len() <= MAX_ATTRIBUTION_BYTES);
    let content = if fits { fs::read(&file).unwrap_or_default() } else { Vec::new() };
    attribution::works(&String::from_utf8_lossy(&content))
}

fn check_name(file: &Path, mode: Mode, report: &mut Report<'_>) {
    let Some(name) = file.file_name().and_then(|name| name.to_str()).filter(|name| *name != "qna.yaml") else { return };
    let message = format!("{name} is not the name of a leaf's file");
    match mode {
        Mode::Lenient => report.warning(START, message, "rename it to qna.yaml: other tools read no other name"),
        Mode::Strict => report.error(START, message, "rename it to qna.yaml"),
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
        (None, Some((_, node))) => {
            let version = match node.value {
                Value::Integer(number) => Some(number as f64),
                // `3.0` is the same number.
                Value::Float(number) => Some(number),
                // `0b11`, which YAML 1.2 takes as text.
                Value::Text(text) if text.parse::<f64>().is_err() => match scalar::resolve(&text, Dialect::Yaml11) {
                    Value::Integer(number) => Some(number as f64),
                    _ => None,
                },
                _ => None,
            };
            let known = [(1.0, LeafVersion::V1), (2.0, LeafVersion::V2), (3.0, LeafVersion::V3)];
            let found = known.into_iter().find(|(number, _)| version == Some(*number));
            if found.is_none() {
                report.error(
                    node.place,
                    "`version` is 1, 2 or 3, a number without quotes",
                    "write `version: 3`, or `espalier: 1` for our own form",
                );
            }
            found.map(|(_, version)| version)
        }
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
