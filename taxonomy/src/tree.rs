//! Finding leaves in a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::diagnostic::{Diagnostic, Severity};
use crate::leaf::Leaf;
use crate::read::{self, Mode};

/// The name that a leaf's file must have.
const LEAF_FILE: &str = "qna.yaml";

/// A name that is read too where the right one is not there.
const SHORT_LEAF_FILE: &str = "qna.yml";

/// A skills tree without errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tree {
    /// What was read: a folder, or one file.
    pub root: PathBuf,
    /// The leaves, sorted by id.
    pub leaves: Vec<Leaf>,
    /// Warnings and notes, sorted by place.
    pub notes: Vec<Diagnostic>,
}

impl Tree {
    /// The leaf of this id.
    pub fn leaf(&self, id: &str) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.id == id)
    }
}

/// Reads every `qna.yaml` in a folder and below it, or a single file, with [`Mode::Lenient`].
///
/// Hidden folders and links to folders are not entered. Nothing is fetched: documents in git give a note.
///
/// # Errors
/// All findings over all files (warnings and notes too), sorted by place, as soon as one is an error.
pub fn read_tree(path: &Path) -> Result<Tree, Vec<Diagnostic>> {
    read_tree_with(path, Mode::default())
}

/// [`read_tree`] with a mode of its own.
///
/// # Errors
/// As [`read_tree`].
pub fn read_tree_with(path: &Path, mode: Mode) -> Result<Tree, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let files = match fs::metadata(path) {
        Err(error) => {
            let hint = if error.kind() == io::ErrorKind::NotFound {
                "give the path of a folder with qna.yaml files, or of one such file"
            } else {
                "check the permissions of the path"
            };
            let message = format!("cannot open: {error}");
            return Err(vec![Diagnostic::new(Severity::Error, path, 1, 1, message).with_hint(hint)]);
        }
        Ok(metadata) if metadata.is_file() => vec![(leaf_name(path), path.to_path_buf())],
        Ok(_) => {
            let mut files = Vec::new();
            find(path, "", &mut files, &mut findings);
            files
        }
    };
    if files.is_empty() {
        findings.push(
            Diagnostic::new(Severity::Error, path, 1, 1, "no qna.yaml in this folder or below it")
                .with_hint("a tree has one folder for each leaf, with a qna.yaml in it"),
        );
    }
    let root = &tree_root(path);
    let mut leaves = Vec::with_capacity(files.len());
    for (id, file) in files {
        leaves.extend(read::leaf(&id, &file, root, mode, &mut findings));
    }
    leaves.sort_by(|a, b| a.id.cmp(&b.id));
    findings.sort_by(Diagnostic::by_place);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(findings);
    }
    Ok(Tree { root: path.to_path_buf(), leaves, notes: findings })
}

/// The folder that no path of a leaf may leave, for a tree that is read from `path`: itself, or the folder of a file.
pub fn tree_root(path: &Path) -> PathBuf {
    let root = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    // A bare file name has an empty folder in front of it.
    if root.as_os_str().is_empty() { PathBuf::from(".") } else { root.to_path_buf() }
}

/// The files that [`read_tree`] would read as leaves, good or not, in the order of their folders.
pub fn leaf_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let mut files = Vec::new();
    find(path, "", &mut files, &mut Vec::new());
    files.into_iter().map(|(_, file)| file).collect()
}

/// The name of the folder that a file lies in.
fn leaf_name(file: &Path) -> String {
    let folder = fs::canonicalize(file).ok().and_then(|file| Some(file.parent()?.file_name()?.to_owned()));
    folder.map_or_else(|| "leaf".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn find(folder: &Path, id: &str, files: &mut Vec<(String, PathBuf)>, findings: &mut Vec<Diagnostic>) {
    let entries: Result<Vec<_>, io::Error> = fs::read_dir(folder).and_then(Iterator::collect);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(
                Diagnostic::new(Severity::Error, folder, 1, 1, format!("cannot read the folder: {error}"))
                    .with_hint("check its permissions"),
            );
            return;
        }
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    let has_leaf_file = entries.iter().any(|entry| entry.file_name() == LEAF_FILE);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        // The type of the entry itself: a link to a folder could lead round in a circle.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let inner = if id.is_empty() { name } else { format!("{id}/{name}") };
            find(&path, &inner, files, findings);
        } else if name == LEAF_FILE || (!has_leaf_file && name == SHORT_LEAF_FILE) {
            files.push((if id.is_empty() { leaf_name(&path) } else { id.to_owned() }, path));
        } else if is_nearly_leaf_file(&name) {
            findings.push(
                Diagnostic::new(Severity::Warning, path, 1, 1, format!("{name} is not read"))
                    .with_hint(format!("rename it to {LEAF_FILE}")),
            );
        }
    }
}

/// Names that were most likely meant to be `qna.yaml`.
fn is_nearly_leaf_file(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().as_str(), "qna.yaml" | "qna.yml" | "qna.json" | "qa.yaml" | "qna.yaml.txt")
}
