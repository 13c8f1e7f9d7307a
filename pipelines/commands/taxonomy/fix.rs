//! `pipeline taxonomy validate --fix`: what can be mended, shown line by line and written.

use super::plural;
use crate::commands::Session;
use crate::content::write_atomically;
use anyhow::{Context, Result};
use espalier_taxonomy::{fix, leaf_files, tree_root};
use std::fs;
use std::path::PathBuf;

/// The name that a leaf's file must have.
const LEAF_FILE: &str = "qna.yaml";

/// Mends every leaf below the paths, or shows what it would do. A path of a file that is renamed becomes its name.
pub(super) fn run(paths: &mut [PathBuf], dry_run: bool, session: Session<'_>) -> Result<()> {
    let (mut files, mut changes) = (0, 0);
    let in_tree = |path: &PathBuf| leaf_files(path).into_iter().map(|file| (file, tree_root(path))).collect::<Vec<_>>();
    let leaves: Vec<(PathBuf, PathBuf)> = paths.iter().flat_map(in_tree).collect();
    for (file, root) in leaves {
        // What cannot be read is said by the check that follows.
        let Ok(content) = fs::read(&file) else { continue };
        let mended = fix::mend(&file, &root, &content);
        let renamed = (file.file_name().is_some_and(|name| name != LEAF_FILE)).then(|| file.with_file_name(LEAF_FILE));
        let renamed = renamed.filter(|renamed| !renamed.exists());
        let steps = mended.as_ref().map_or(&[][..], |mended| &mended.changes);
        for change in steps {
            session.reporter.line(format!("{}:{}: {}", file.display(), change.line, change.what));
            for line in &change.before {
                session.reporter.line(format!("  - {line}"));
            }
            for line in &change.after {
                session.reporter.line(format!("  + {line}"));
            }
        }
        if let Some(renamed) = &renamed {
            session.reporter.line(format!("{}: renamed to {}", file.display(), renamed.display()));
        }
        changes += steps.len() + usize::from(renamed.is_some());
        files += usize::from(!steps.is_empty() || renamed.is_some());
        if dry_run {
            continue;
        }
        if let Some(mended) = &mended {
            write_atomically(&file, mended.text.as_bytes())?;
        }
        if let Some(renamed) = renamed {
            fs::rename(&file, &renamed).with_context(|| format!("cannot rename {}", file.display()))?;
            paths.iter_mut().filter(|path| **path == file).for_each(|path| path.clone_from(&renamed));
        }
    }
    let done = if dry_run { "would be made" } else { "made" };
    session.reporter.line(format!("{} {done} in {}", plural(changes, "change"), plural(files, "file")));
    Ok(())
}
