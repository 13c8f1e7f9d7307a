//! From `InstructLab`'s forms to our own: the text is edited, so that comments and layout stay.

use std::path::Path;

use crate::diagnostic::Diagnostic;
use crate::leaf::{Leaf, LeafKind};
use crate::node::{Dialect, Key, Node, Value};
use crate::parse::parse_file;
use crate::read::{self, Mode};

/// Turns the text of a leaf's file at `file`, in a tree below `root`, into `espalier: 1`; `None` where it is our form already.
///
/// Versions 1, 2 and 3 become the same leaf. Knowledge of versions 1 and 2, which is read no longer, becomes knowledge too: its
/// `task_description` goes, which only skills have.
///
/// # Errors
/// What is wrong with the leaf, or what it lacks in our form.
pub fn upgrade(file: &Path, root: &Path, content: &str) -> Result<Option<String>, Vec<Diagnostic>> {
    let text = read::file::normal(content);
    let Ok(Value::Mapping(entries)) = parse_file(&text, Dialect::Lenient).map(|file| file.root.value) else {
        // Reading says what is wrong with it; a file of nothing stays as it is.
        return read::leaf_of(file, root, &text, Mode::Lenient).map(|_| None);
    };
    if entries.iter().any(|(key, _)| key.name == "espalier") {
        return Ok(None);
    }
    let before = read::leaf_of(file, root, &text, Mode::Lenient).ok().flatten();
    let upgraded = edit(&text, &entries);
    match read::leaf_of(file, root, &upgraded, Mode::Lenient)? {
        Some(after) if before.as_ref().is_none_or(|before| says_the_same(before, &after)) => Ok(Some(upgraded)),
        _ => Err(vec![
            Diagnostic::new(crate::Severity::Error, file, 1, 1, "the leaf would say something else in our form")
                .with_hint("write `espalier: 1` in place of `version` by hand, and see what `pipeline taxonomy validate` finds"),
        ]),
    }
}

/// `espalier: 1` in place of the version, or in front of the first key.
fn edit(text: &str, entries: &[(Key, Node)]) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let line_of = |name: &str| entries.iter().find(|(key, _)| key.name == name).map(|(key, _)| key.place.line);
    let mut drop = 0..0;
    let knowledge = ["domain", "document", "document_outline"].iter().any(|name| line_of(name).is_some());
    if let Some(line) = line_of("task_description").filter(|_| knowledge) {
        let next = entries.iter().map(|(key, _)| key.place.line).filter(|next| *next > line).min();
        drop = line - 1..next.map_or(lines.len(), |next| next - 1);
    }
    if let Some(line) = line_of("version") {
        let comment = lines[line - 1].split_once(" #").map(|(_, comment)| format!("  #{comment}"));
        lines[line - 1] = format!("espalier: 1{}", comment.unwrap_or_default());
        lines.drain(drop);
    } else {
        let first = entries.iter().map(|(key, _)| key.place.line).min().unwrap_or(1);
        lines.drain(drop);
        lines.insert(first - 1, "espalier: 1".to_owned());
    }
    let mut text = lines.join("\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Whether two leaves teach the same, whatever their forms.
fn says_the_same(before: &Leaf, after: &Leaf) -> bool {
    // A knowledge leaf has no task.
    let task = after.kind == LeafKind::Knowledge || before.task_description == after.task_description;
    let seeds = before.seeds.len() == after.seeds.len()
        && before.seeds.iter().zip(&after.seeds).all(|(before, after)| {
            (before.question.trim_end(), before.answer.trim_end(), &before.context)
                == (after.question.trim_end(), after.answer.trim_end(), &after.context)
        });
    task && seeds
        && (
            before.kind,
            &before.created_by,
            &before.domain,
            &before.document_outline,
            &before.documents,
            &before.license,
        ) == (
            after.kind,
            &after.created_by,
            &after.domain,
            &after.document_outline,
            &after.documents,
            &after.license,
        )
}
