//! `attribution.txt` beside a leaf: which works it is made of, whose they are and under which licences.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity};
use crate::leaf::{Leaf, LeafVersion};
use crate::license;
use crate::tree::Tree;

/// The name of the file.
pub(crate) const FILE: &str = "attribution.txt";

/// A work that a leaf is made of: one block of `attribution.txt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Its title.
    pub title: Option<String>,
    /// Where it is; `None` also for an author's own work, whose link is `-`.
    pub link: Option<String>,
    /// Where the very revision is.
    pub revision: Option<String>,
    /// The licence as it is stated.
    pub license: Option<String>,
    /// The licence's SPDX identifier, where it is known.
    pub spdx: Option<String>,
    /// Who made it.
    pub creators: Vec<String>,
    /// Line of the licence, or of the block's first line, from 1.
    pub line: usize,
}

/// The blocks of an `attribution.txt`: separated by empty lines, or begun by a second title.
pub(crate) fn works(text: &str) -> Vec<Work> {
    let mut works: Vec<Work> = Vec::new();
    let mut open = false;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            open = false;
            continue;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let key = key.trim().trim_start_matches(['-', '*', ' ']).to_lowercase();
        let value = value.trim();
        let value = (!value.is_empty() && value != "-").then(|| value.to_owned());
        let title = matches!(key.as_str(), "title of work" | "title");
        if !open || (title && works.last().is_some_and(|work| work.title.is_some())) {
            works.push(Work { line: index + 1, ..Work::default() });
            open = true;
        }
        let Some(work) = works.last_mut() else { continue };
        match key.as_str() {
            "title of work" | "title" => work.title = value,
            "link to work" | "link" => work.link = value,
            "revision" => work.revision = value,
            "license of the work" | "licence of the work" | "license" | "licence" => {
                work.spdx = value.as_deref().and_then(license::spdx);
                work.license = value;
                work.line = index + 1;
            }
            "creator names" | "creator name" | "creators" | "creator" => {
                work.creators = value
                    .into_iter()
                    .flat_map(|names| names.split([',', ';']).map(|name| name.trim().to_owned()).collect::<Vec<_>>())
                    .collect();
            }
            _ => {}
        }
    }
    works.retain(|work| *work != Work { line: work.line, ..Work::default() });
    works
}

/// The licences of works, each once: SPDX identifiers, or what is stated where none is known, joined by ` AND ` as in an SPDX
/// expression.
pub(crate) fn license(works: &[Work]) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in works.iter().filter_map(|work| work.spdx.as_deref().or(work.license.as_deref())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join(" AND "))
}

/// Holds the licences of a tree to a list of SPDX identifiers; what is not on it is a finding of this severity.
///
/// A leaf that names no licence is a finding too, of an error's severity for every leaf and of a warning's for those of
/// `InstructLab`'s forms 2 and 3, whose tree asks for one.
pub fn check_licenses(tree: &Tree, accepted: &[String], severity: Severity) -> Vec<Diagnostic> {
    tree.leaves.iter().flat_map(|leaf| check_leaf(leaf, accepted, severity)).collect()
}

fn check_leaf(leaf: &Leaf, accepted: &[String], severity: Severity) -> Vec<Diagnostic> {
    let file = leaf.file.with_file_name(FILE);
    if leaf.works.is_empty() {
        let asked = severity == Severity::Error || matches!(leaf.version, LeafVersion::V2 | LeafVersion::V3);
        return asked.then(|| absent(&leaf.file, severity)).into_iter().collect();
    }
    let finding = |work: &Work, message: String, hint: &str| {
        Diagnostic::new(severity, &file, work.line, 1, message).with_hint(hint)
    };
    let check = |work: &Work| match (&work.license, &work.spdx) {
        (None, _) => {
            Some(finding(work, "this work names no licence".to_owned(), "add a line `License of the work: CC-BY-4.0`"))
        }
        (Some(stated), None) => Some(finding(
            work,
            format!("the licence {stated:?} is not known"),
            "write its SPDX identifier, such as CC-BY-4.0 (spdx.org/licenses lists them)",
        )),
        (Some(_), Some(spdx)) if !accepted.contains(spdx) => Some(finding(
            work,
            format!("the licence {spdx} is not on the list {}", accepted.join(", ")),
            "leave the work out, or take the licence on the list if its terms fit yours",
        )),
        _ => None,
    };
    leaf.works.iter().filter_map(check).collect()
}

fn absent(file: &Path, severity: Severity) -> Diagnostic {
    Diagnostic::new(severity, file, 1, 1, "no attribution.txt says whose work this is and under which licence").with_hint(
        "write one beside it: `Title of work: ...`, `Link to work: ...` (- for your own), `License of the work: CC-BY-4.0`, `Creator names: ...`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_their_lines() {
        let text = "Title of work: A\nLink to work: -\nLicense of the work: CC BY-SA 4.0\nCreator names: x, y\n\n\n- Title of work: B\nLicense of the work: MIT\nTitle of work: C\nLicense of the work: my own";
        let works = works(text);
        let short: Vec<_> = works.iter().map(|work| (work.title.as_deref(), work.spdx.as_deref(), work.line)).collect();
        assert_eq!(short, [(Some("A"), Some("CC-BY-SA-4.0"), 3), (Some("B"), Some("MIT"), 8), (Some("C"), None, 10)]);
        assert_eq!((works[0].link.as_deref(), &works[0].creators[..]), (None, &["x".to_owned(), "y".to_owned()][..]));
        assert_eq!(license(&works).as_deref(), Some("CC-BY-SA-4.0 AND MIT AND my own"));
        assert_eq!(super::works("hello\n\n: \nLicense of the work: -\n"), []);
    }
}
