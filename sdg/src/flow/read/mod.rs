//! From YAML to a [`Flow`].

mod instructlab;
mod own;
mod values;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use espalier_taxonomy::yaml::{Fields, Node, Report, Value, parse};
use espalier_taxonomy::{Diagnostic, LeafKind, Place, Severity};

use super::Flow;
use super::prompt::{FlowPrompt, Template};
use super::shipped;

/// A file of a flow that is larger than this is a mistake.
const MAX_BYTES: u64 = 4 << 20;

/// The flows of a folder, one for each kind of leaf.
#[derive(Clone, Debug, Default)]
pub struct FlowSet {
    knowledge: Option<Flow>,
    freeform: Option<Flow>,
    grounded: Option<Flow>,
}

impl FlowSet {
    /// One flow for leaves of one kind.
    pub fn one(kind: LeafKind, flow: Flow) -> Self {
        let mut set = Self::default();
        *match kind {
            LeafKind::Knowledge => &mut set.knowledge,
            LeafKind::FreeformSkill => &mut set.freeform,
            LeafKind::GroundedSkill => &mut set.grounded,
        } = Some(flow);
        set
    }

    /// The flow for leaves of a kind, where the folder has one.
    pub fn of(&self, kind: LeafKind) -> Option<&Flow> {
        match kind {
            LeafKind::Knowledge => self.knowledge.as_ref(),
            LeafKind::FreeformSkill => self.freeform.as_ref(),
            LeafKind::GroundedSkill => self.grounded.as_ref(),
        }
    }

    /// All of them.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        [&self.knowledge, &self.freeform, &self.grounded].into_iter().flatten()
    }
}

/// Reads the flows of a folder: `knowledge.yaml`, `freeform_skills.yaml` and `grounded_skills.yaml`, each where it is there.
///
/// # Errors
/// What is wrong in any of them, or that none is there.
pub fn read_flows(folder: &Path) -> Result<FlowSet, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let mut flow = |name: &str| {
        let path = folder.join(name);
        if shipped::text(&path).is_none() && !path.is_file() {
            return None;
        }
        read_flow(&path).map_err(|mut found| findings.append(&mut found)).ok()
    };
    let set = FlowSet {
        knowledge: flow("knowledge.yaml"),
        freeform: flow("freeform_skills.yaml"),
        grounded: flow("grounded_skills.yaml"),
    };
    if findings.is_empty() && set.flows().next().is_none() {
        let finding = Diagnostic::new(Severity::Error, folder, 1, 1, "this folder has no flow");
        findings.push(finding.with_hint("put knowledge.yaml, freeform_skills.yaml or grounded_skills.yaml into it"));
    }
    if findings.is_empty() { Ok(set) } else { Err(findings) }
}

/// Reads a flow: a file of ours (`espalier: 1`) or an `InstructLab` pipeline, with the prompts that it names. Whether it can
/// run, [`Flow::check`] says.
///
/// # Errors
/// Everything that is wrong with the form of the file and of its prompts.
pub fn read_flow(path: &Path) -> Result<Flow, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let mut files = Files { folder: path.parent().unwrap_or(Path::new("")).to_path_buf(), texts: Vec::new() };
    let flow = file(path, &mut files, &mut findings);
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    match flow.filter(|_| !failed) {
        Some(flow) => Ok(flow),
        None => Err(findings),
    }
}

fn file(path: &Path, files: &mut Files, findings: &mut Vec<Diagnostic>) -> Option<Flow> {
    let mut report = Report::new(path, findings);
    let text = match read_text(path) {
        Ok(text) => text,
        Err(reason) => {
            report.error(START, format!("cannot be read: {reason}"), "name a flow's file");
            return None;
        }
    };
    let root = match parse(&text) {
        Ok(root) => root,
        Err(error) => {
            let hint = "look at brackets, quotes and indents";
            report.error(error.place, format!("this is not YAML: {}", error.message), hint);
            return None;
        }
    };
    let mut fields = Fields::of(root, "a flow", &mut report)?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let flow = if fields.has("espalier") {
        own::read(&mut fields, &name, files, &mut report)
    } else {
        instructlab::read(&mut fields, &name, files, &mut report)
    };
    fields.refuse_the_rest(&mut report);
    let mut flow = flow?;
    flow.file = path.to_path_buf();
    let texts = files.texts.iter().map(std::string::String::as_bytes);
    flow.hash = Flow::digest([text.as_bytes()].into_iter().chain(texts));
    Some(flow)
}

const START: Place = Place { line: 1, column: 1 };

/// The files that a flow names, relative to its own.
pub(super) struct Files {
    folder: PathBuf,
    /// What was read, for the digest.
    texts: Vec<String>,
}

impl Files {
    /// The text of a file that is named in a place.
    fn read(&mut self, name: &str, place: Place, report: &mut Report<'_>) -> Option<String> {
        let path = self.folder.join(name);
        match read_text(&path) {
            Ok(text) => {
                self.texts.push(text.clone());
                Some(text)
            }
            Err(reason) => {
                let message = format!("the file {} cannot be read: {reason}", path.display());
                report.error(place, message, "names of files are relative to the flow's folder");
                None
            }
        }
    }

    /// A prompt file of ours.
    fn turns(&mut self, name: &str, place: Place, report: &mut Report<'_>) -> Option<FlowPrompt> {
        let text = self.read(name, place, report)?;
        Some(FlowPrompt { name: name.to_owned(), template: Template::Turns(text) })
    }

    /// A file that is YAML.
    fn yaml(&mut self, name: &str, place: Place, report: &mut Report<'_>) -> Option<Node> {
        let text = self.read(name, place, report)?;
        match parse(&text) {
            Ok(node) => Some(node),
            Err(error) => {
                let Place { line, column } = error.place;
                let message = format!("{name}:{line}:{column} is not YAML: {}", error.message);
                report.error(place, message, "correct that file");
                None
            }
        }
    }
}

/// A text with `\n` as line end and without a byte order mark.
fn read_text(path: &Path) -> Result<String, String> {
    if let Some(text) = shipped::text(path) {
        return Ok(text.to_owned());
    }
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(format!("it has {size} bytes, more than {MAX_BYTES}"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    Ok(text.trim_start_matches('\u{feff}').replace("\r\n", "\n"))
}

/// Where the values of a mapping's keys stand.
fn key_places(node: &Node) -> HashMap<String, Place> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().map(|(key, node)| (key.name.clone(), node.place)).collect(),
        _ => HashMap::new(),
    }
}

/// The name of a block: there, and no other block's.
fn block_name(fields: &mut Fields, taken: &mut Vec<String>, report: &mut Report<'_>) -> Option<String> {
    let (name, place) = fields.required_text("name", report)?;
    if taken.contains(&name) {
        report.error(place, format!("two blocks are called `{name}`"), "give one of them another name");
        return None;
    }
    taken.push(name.clone());
    Some(name)
}

/// Keys of which it cannot be said whether they belong there.
fn forget(fields: &mut Fields) {
    *fields = Fields::new(Vec::new(), fields.place, "");
}

/// A type that no block has.
fn unknown_type(found: &str, place: Place, known: &[&str], fields: &mut Fields, report: &mut Report<'_>) {
    forget(fields);
    let close = known.iter().find(|known| espalier_taxonomy::yaml::distance(known, found) <= 2);
    let hint = match close {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    report.error(place, format!("unknown type of block `{found}`"), hint);
}
