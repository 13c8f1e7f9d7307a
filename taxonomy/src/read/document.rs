//! The documents of a leaf: files, patterns of file names, text in place, and clones of git repositories.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::Report;
use super::fields::{Blank, Fields, list};
use super::files::{self, Pattern};
use super::seeds;
use crate::document::{ExtractError, Limits, extract_once};
use crate::leaf::{Document, Place};
use crate::node::{Node, Value};

/// Most documents of a leaf.
const MAX_DOCUMENTS: usize = 10_000;

/// Most bytes of text that a leaf's documents may have together.
const MAX_TEXT: usize = 256 << 20;

/// Collects the documents of one leaf; a file that is named twice counts once.
struct Documents<'a> {
    /// The folder that no path may leave.
    root: &'a Path,
    found: Vec<Document>,
    seen: HashSet<PathBuf>,
    bytes: usize,
}

/// Reads `document`, one or a list of `{path}`, `{glob}`, `{text}` and `{repo, commit, patterns}`. Paths stay in `root`.
pub(crate) fn read(fields: &mut Fields, root: &Path, report: &mut Report<'_>) -> Vec<Document> {
    let Some(node) = fields.require("document", report) else { return Vec::new() };
    let mut documents = Documents { root, found: Vec::new(), seen: HashSet::new(), bytes: 0 };
    let items = if matches!(node.value, Value::Sequence(_)) {
        let place = node.place;
        let items = list(node, "document", report).unwrap_or_default();
        if items.is_empty() {
            report.error(place, "`document` is an empty list", "name a document: `- path: FILE.md`");
        }
        items
    } else {
        vec![node]
    };
    for item in items {
        documents.item(item, report);
    }
    documents.found
}

impl Documents<'_> {
    fn item(&mut self, node: Node, report: &mut Report<'_>) {
        let start = node.place;
        let Some(mut item) = Fields::of(node, "`document`", report) else { return };
        let known = ["path", "glob", "text", "repo"];
        let named: Vec<&str> = known.into_iter().filter(|key| item.has(key)).collect();
        match named[..] {
            ["glob"] => {
                if let Some((pattern, place)) = item.required_text("glob", report) {
                    self.glob(&pattern, place, report);
                }
            }
            ["text"] => {
                if let Some((text, _)) = item.required_text("text", report) {
                    self.add(Document { path: report.file().to_path_buf(), text }, start, report);
                }
            }
            ["repo"] => {
                let found = git(&mut item, start, report);
                for document in found {
                    self.add(document, start, report);
                }
            }
            // Also where none is named, so that `path` is asked for.
            ["path"] | [] => {
                if let Some((name, place)) = item.required_text("path", report) {
                    self.path(&name, place, report);
                }
            }
            _ => report.error(
                start,
                format!("a document is one of {}, this has {}", known.join(", "), named.join(" and ")),
                "make two items of a list of it: `- path: a.md`, `- text: ...`",
            ),
        }
        for key in known.into_iter().chain(["commit", "patterns"]) {
            if item.has(key) && named.contains(&key) {
                item.take(key);
            }
        }
        item.refuse_the_rest(report);
    }

    fn path(&mut self, name: &str, place: Place, report: &mut Report<'_>) {
        let file = folder_of(report).join(name);
        if Path::new(name).is_absolute() || leaves(&file, self.root) {
            refuse_outside(name, place, report);
            return;
        }
        if let Some(document) = load(&file, name, place, report) {
            self.file(document, place, report);
        }
    }

    fn glob(&mut self, pattern: &str, place: Place, report: &mut Report<'_>) {
        let mut base = folder_of(report);
        let mut rest = pattern;
        while let Some(inner) = rest.strip_prefix("../") {
            base = base.join("..");
            rest = inner;
        }
        if Path::new(pattern).is_absolute() || rest.split('/').any(|part| part == "..") || leaves(&base, self.root) {
            refuse_outside(pattern, place, report);
            return;
        }
        let Some(found) = matches(&base, &[rest.to_owned()], place, report) else { return };
        if found.is_empty() {
            report.error(
                place,
                format!("no file matches {pattern}"),
                format!("the pattern is looked for in {}; `**/` stands for any folders", base.display()),
            );
        }
        for file in found {
            let name = file.strip_prefix(&base).unwrap_or(&file).display().to_string();
            if let Some(document) = load(&file, &name, place, report) {
                self.file(document, place, report);
            }
        }
    }

    /// A document that is a file, unless it was there before.
    fn file(&mut self, document: Document, place: Place, report: &mut Report<'_>) {
        let known = fs::canonicalize(&document.path).unwrap_or_else(|_| document.path.clone());
        if self.seen.insert(known) {
            self.add(document, place, report);
        }
    }

    fn add(&mut self, document: Document, place: Place, report: &mut Report<'_>) {
        self.bytes += document.text.len();
        if self.found.len() >= MAX_DOCUMENTS || self.bytes > MAX_TEXT {
            if !report.failed() {
                report.error(
                    place,
                    format!("these are more than {MAX_DOCUMENTS} documents or {} MB of text", MAX_TEXT >> 20),
                    "make several leaves of them",
                );
            }
            return;
        }
        self.found.push(document);
    }
}

/// Reads `{repo, commit, patterns}`. A clone on this machine (a path, or a `file:` URL) gives the files of its work tree that
/// match; anything else is noted and nothing is fetched.
pub(super) fn git(document: &mut Fields, start: Place, report: &mut Report<'_>) -> Vec<Document> {
    let repository = document.text_or_blank("repo", Blank::Blanks, report);
    let commit = document.text_or_blank("commit", Blank::Blanks, report);
    let patterns = patterns(document, report);
    let (Some(repository), Some(commit), Some((patterns, place))) = (repository, commit, patterns) else {
        return Vec::new();
    };
    let Some(clone) = local_clone(&repository, report) else {
        let short: String = commit.chars().take(12).collect();
        report.note(
            start,
            format!("the document is in {repository} at {short} and not here; nothing is fetched"),
            "to generate from it, clone it, check the commit out and write `repo: FOLDER`; or save the document beside the leaf and use `espalier: 1` with `document: {path: FILE.md}`",
        );
        return Vec::new();
    };
    if let Some(head) = files::git_head(&clone)
        && !head.starts_with(&commit.to_lowercase())
    {
        report.warning(
            start,
            format!("the clone {} is at {}, and the leaf names {commit}", clone.display(), &head[..head.len().min(12)]),
            format!("git -C {} checkout {commit}", clone.display()),
        );
    }
    if let Some(pattern) = patterns.iter().find(|pattern| !stays_inside(Path::new(pattern))) {
        refuse_outside(pattern, place, report);
        return Vec::new();
    }
    let Some(found) = matches(&clone, &patterns, place, report) else { return Vec::new() };
    if found.is_empty() {
        report.error(
            place,
            format!("no file of {} matches", clone.display()),
            "correct `patterns`, or check out the commit",
        );
    }
    let name = |file: &Path| file.strip_prefix(&clone).unwrap_or(file).display().to_string();
    found.iter().filter_map(|file| load(file, &name(file), place, report)).collect()
}

fn patterns(document: &mut Fields, report: &mut Report<'_>) -> Option<(Vec<String>, Place)> {
    let node = document.require("patterns", report)?;
    let place = node.place;
    let patterns = seeds::texts(node, "patterns", Blank::Blanks, report)?;
    if patterns.is_empty() {
        report.error(place, "`patterns` is empty", "add the name of a file in the repository: `- page.md`");
    }
    let mut sorted = patterns.clone();
    sorted.sort();
    sorted.dedup();
    if sorted.len() < patterns.len() {
        report.error(place, "`patterns` names a file twice", "remove one of the two");
    }
    Some((patterns, place))
}

/// The folder of a repository that is on this machine: a path with a `.git` in it.
fn local_clone(repository: &str, report: &Report<'_>) -> Option<PathBuf> {
    let path = match repository.split_once("://") {
        Some(("file", path)) => path.strip_prefix("localhost").unwrap_or(path),
        Some(_) => return None,
        None => repository.strip_prefix("file:").unwrap_or(repository),
    };
    let folder = folder_of(report).join(path);
    folder.join(".git").exists().then_some(folder)
}

fn matches(base: &Path, patterns: &[String], place: Place, report: &mut Report<'_>) -> Option<Vec<PathBuf>> {
    let compiled: Result<Vec<Pattern>, String> = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
    let found = compiled.and_then(|patterns| files::matching(base, &patterns, MAX_DOCUMENTS));
    match found {
        Ok(found) => Some(found),
        Err(message) => {
            let hint = "correct the pattern: `*`, `?` and `[a-z]` within a name, `**/` for any folders";
            report.error(place, message, hint);
            None
        }
    }
}

/// The text of a file: Markdown and plain text as they are, other forms as Markdown.
fn load(file: &Path, name: &str, place: Place, report: &mut Report<'_>) -> Option<Document> {
    let limits = Limits::default();
    let plain = file.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    if matches!(plain.as_deref(), Some("md" | "markdown" | "txt"))
        && fs::metadata(file).is_ok_and(|metadata| metadata.len() <= limits.text_bytes as u64)
        && let Ok(text) = fs::read_to_string(file)
        && !text.contains('\0')
        && !text.trim().is_empty()
    {
        return Some(Document { path: file.to_path_buf(), text: super::file::normal(&text) });
    }
    match extract_once(file, &limits) {
        Ok(extracted) => {
            for warning in extracted.warnings {
                report.note(
                    place,
                    format!("the document {name}: {warning}"),
                    "`pipeline taxonomy preview` shows its chunks",
                );
            }
            Some(Document { path: file.to_path_buf(), text: extracted.text })
        }
        Err(error) => {
            let hint = match &error {
                ExtractError::Read(error) if error.kind() == ErrorKind::NotFound => {
                    format!("put it at {}, or correct `path`", file.display())
                }
                _ => format!("{} ({})", error.hint(), file.display()),
            };
            report.error(place, format!("the document {name} {error}"), hint);
            None
        }
    }
}

fn refuse_outside(name: &str, place: Place, report: &mut Report<'_>) {
    report.error(
        place,
        format!("the document {name} lies outside the tree"),
        "copy it into the tree and name it from the leaf's folder: a tree must be whole when it is moved",
    );
}

fn folder_of(report: &Report<'_>) -> PathBuf {
    report.file().parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Whether a path, links followed, lies outside a folder. One that is not there is judged by its parts.
fn leaves(path: &Path, root: &Path) -> bool {
    let Ok(root) = fs::canonicalize(root) else { return true };
    if let Ok(path) = fs::canonicalize(path) {
        return !path.starts_with(&root);
    }
    let mut plain = PathBuf::new();
    for part in std::env::current_dir().unwrap_or_default().join(path).components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    // A folder on the way may be reached by a link, as the root may be.
    let known = plain.ancestors().find_map(|folder| fs::canonicalize(folder).ok());
    !known.is_some_and(|known| known.starts_with(&root))
}

/// Whether a path names something in the folder that it is relative to.
pub(crate) fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
