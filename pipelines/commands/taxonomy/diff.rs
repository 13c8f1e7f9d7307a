//! `pipeline taxonomy diff`: what changed between two states of a tree.

use super::plural;
use crate::cli::DiffArgs;
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use crate::stages::generate::read_tree;
use anyhow::{Context, Result};
use espalier_taxonomy::{PartDifference, TreeDifference, TreeState};
use std::fs;
use std::io::{Cursor, ErrorKind, Write};
use std::path::{Component, Path};
use std::process::{Command, Output};

pub(super) fn run(arguments: &DiffArgs, session: Session<'_>) -> Result<Status> {
    let usage = |message: &str| {
        Failure::usage(message).hint("`diff OLD NEW`, `diff --git REF TREE`, or `diff --save FILE TREE`")
    };
    let (old, new) = match (&arguments.paths[..], &arguments.git, &arguments.save) {
        ([tree], None, Some(file)) => return save(tree, file, session),
        ([tree], Some(reference), None) => (at_commit(tree, reference)?, state(tree)?),
        ([old, new], None, None) => (state(old)?, state(new)?),
        ([_], None, None) => return Err(usage("there is nothing to compare the tree with").into()),
        _ => return Err(usage("with --git or --save one tree is given").into()),
    };
    let difference = TreeDifference::between(&old, &new);
    show(&difference, session);
    session.reporter.result(serde_json::json!({"difference": difference}));
    Ok(Status::Done)
}

fn save(tree: &Path, file: &Path, session: Session<'_>) -> Result<Status> {
    let state = TreeState::of(&read_tree(tree)?);
    crate::content::write_atomically(file, serde_json::to_string_pretty(&state)?.as_bytes())?;
    session.reporter.line(format!("{} kept in {}", leaves(state.leaves.len()), file.display()));
    session.reporter.result(serde_json::json!({"leaves": state.leaves.len(), "file": file}));
    Ok(Status::Done)
}

/// A tree, or what --save wrote of one.
fn state(path: &Path) -> Result<TreeState> {
    let is_leaf = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if !path.is_file() || is_leaf {
        return Ok(TreeState::of(&read_tree(path)?));
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let state: Result<TreeState, _> = serde_json::from_str(&text);
    match state {
        Ok(state) if state.espalier_tree == 1 => Ok(state),
        Ok(_) => Err(Failure::usage(format!("{} was written by a later version", path.display())).into()),
        Err(error) => Err(Failure::usage(format!("{}: not the state of a tree: {error}", path.display()))
            .hint("give a folder, or a file that `pipeline taxonomy diff --save FILE TREE` wrote")
            .into()),
    }
}

/// The state of a tree at a commit, which git writes out as one archive.
fn at_commit(tree: &Path, reference: &str) -> Result<TreeState> {
    let folder = if tree.is_dir() { tree } else { tree.parent().unwrap_or(Path::new(".")) };
    let git = |arguments: &[&str]| -> Result<Output> {
        Command::new("git").arg("-C").arg(folder).args(arguments).output().map_err(|error| {
            let message = if error.kind() == ErrorKind::NotFound {
                "the program git is not installed".to_owned()
            } else {
                format!("the program git cannot be started: {error}")
            };
            Failure::usage(message)
                .hint("without git: `diff OLD NEW` compares two folders, `diff --save FILE TREE` keeps a state")
                .into()
        })
    };
    if !git(&["rev-parse", "--show-prefix"])?.status.success() {
        return Err(Failure::usage(format!("{} is in no git repository", folder.display()))
            .hint("`diff OLD NEW` compares two folders, `diff --save FILE TREE` keeps a state")
            .into());
    }
    let commit = format!("{reference}^{{commit}}");
    // Behind `--end-of-options` a name that begins with a dash is no option.
    if !git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])?.status.success() {
        return Err(Failure::usage(format!("git knows no commit, branch or tag {reference}"))
            .hint("`git log --oneline` lists commits, `git branch --all` branches; fetch it first if it lies elsewhere")
            .into());
    }
    let id = git(&["rev-parse", "--verify", "--end-of-options", &commit])?;
    let archive = git(&["archive", "--format=zip", String::from_utf8_lossy(&id.stdout).trim()])?;
    if !archive.status.success() {
        // The folder was not there at that time.
        return Ok(TreeState { espalier_tree: 1, ..TreeState::default() });
    }
    let scratch = tempfile::tempdir().context("cannot make a folder for the older tree")?;
    // A leaf that is read by itself has the name of its folder.
    let name = folder.canonicalize().ok().and_then(|folder| Some(folder.file_name()?.to_owned())).unwrap_or_default();
    let root = scratch.path().join(name);
    unpack(&archive.stdout, &root).with_context(|| format!("cannot unpack the tree at {reference}"))?;
    let tree = if tree.is_dir() { root.clone() } else { root.join(tree.file_name().unwrap_or_default()) };
    read_state_at(&tree, reference, &root)
}

/// Errors name the commit, not the folder that it was written to for a moment.
fn read_state_at(tree: &Path, reference: &str, scratch: &Path) -> Result<TreeState> {
    match espalier_taxonomy::read_tree(tree) {
        Ok(tree) => Ok(TreeState::of(&tree)),
        Err(errors) if errors.iter().all(|error| error.file == tree) => {
            Ok(TreeState { espalier_tree: 1, ..TreeState::default() })
        }
        Err(errors) => {
            let scratch = format!("{}/", scratch.display());
            let lines: Vec<String> =
                errors.iter().map(|error| error.to_string().replace(&scratch, &format!("{reference}:"))).collect();
            Err(Failure::usage(format!("the skills tree at {reference} has errors:\n{}", lines.join("\n")))
                .hint("choose a commit whose tree can be read")
                .into())
        }
    }
}

/// Writes the files of an archive of git into a folder; links and names that lead elsewhere are left out.
fn unpack(bytes: &[u8], folder: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(name) = entry.enclosed_name() else { continue };
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !entry.is_file() || !plain {
            continue;
        }
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::File::create(path)?;
        std::io::copy(&mut entry, &mut file)?;
        file.flush()?;
    }
    Ok(())
}

fn show(difference: &TreeDifference, session: Session<'_>) {
    let line = |text: String| session.reporter.line(text);
    for id in &difference.new {
        line(format!("new      {id}"));
    }
    for leaf in &difference.changed {
        line(format!("changed  {}", leaf.id));
        let parts =
            [("seed", &leaf.seeds), ("test", &leaf.tests), ("document", &leaf.documents), ("setting", &leaf.settings)];
        for (what, part) in parts {
            show_part(what, part, session);
        }
    }
    for (from, to) in &difference.moved {
        line(format!("moved    {from} -> {to}"));
    }
    for id in &difference.gone {
        line(format!("gone     {id}"));
    }
    if difference.is_empty() {
        line("no leaf changed".to_owned());
        return;
    }
    let TreeDifference { new, changed, gone, moved } = difference;
    line(format!("{} new, {} changed, {} moved, {} gone", new.len(), changed.len(), moved.len(), gone.len()));
}

fn show_part(what: &str, part: &PartDifference, session: Session<'_>) {
    for (word, names) in [("added", &part.added), ("removed", &part.removed), ("changed", &part.changed)] {
        for name in names {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            session.reporter.line(format!("           {what} {word}: {name}"));
        }
    }
}

fn leaves(count: usize) -> String {
    plural(count, "leaf").replace("leafs", "leaves")
}
