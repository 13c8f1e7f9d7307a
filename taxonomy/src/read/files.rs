//! Files below a folder by patterns of their names, and where a clone stands.

use std::fs;
use std::path::{Path, PathBuf};

/// Most entries of folders that are looked at for one pattern.
const MAX_ENTRIES: usize = 200_000;

/// Deepest folder that is entered.
const MAX_DEPTH: usize = 64;

/// A pattern of paths with `/`: `*`, `?` and `[a-z]` stand for parts of one name, `**` for any folders.
pub(super) struct Pattern(glob::Pattern);

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        glob::Pattern::new(pattern)
            .map(Self)
            .map_err(|error| format!("the pattern {pattern} cannot be used: {}", error.msg))
    }

    fn matches(&self, path: &str) -> bool {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        self.0.matches_with(path, options)
    }
}

/// The files below a folder that match a pattern, sorted by path. Hidden names and links are left out.
///
/// # Errors
/// Words for a folder that cannot be read or holds too much.
pub(super) fn matching(base: &Path, patterns: &[Pattern], most: usize) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut waiting = vec![(base.to_path_buf(), String::new(), 0)];
    let mut entries_seen = 0;
    while let Some((folder, prefix, depth)) = waiting.pop() {
        let entries =
            fs::read_dir(&folder).map_err(|error| format!("cannot read the folder {}: {error}", folder.display()))?;
        for entry in entries.flatten() {
            entries_seen += 1;
            if entries_seen > MAX_ENTRIES {
                return Err(format!("more than {MAX_ENTRIES} files lie below {}", base.display()));
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if kind.is_dir() && depth < MAX_DEPTH {
                waiting.push((entry.path(), path, depth + 1));
            } else if kind.is_file() && patterns.iter().any(|pattern| pattern.matches(&path)) {
                found.push((path, entry.path()));
                if found.len() > most {
                    return Err(format!("more than {most} files match"));
                }
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The commit that a clone's work tree stands at, where its files tell.
pub(super) fn git_head(clone: &Path) -> Option<String> {
    let git = clone.join(".git");
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let head = head.trim();
    let commit = match head.strip_prefix("ref: ") {
        None => head.to_owned(),
        Some(reference) => fs::read_to_string(git.join(reference))
            .ok()
            .or_else(|| {
                let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
                packed.lines().find_map(|line| line.strip_suffix(reference)).map(str::to_owned)
            })?
            .trim()
            .to_owned(),
    };
    (commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(commit)
}
