//! Which documents a leaf has, and that none comes from outside of its tree.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::fs;
use std::path::Path;

use espalier_taxonomy::{Leaf, Severity, read_tree};

/// A tree with a leaf at `a/leaf` that has these documents.
fn tree(document: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let seeds: String = (0..3).map(|n| format!("  - {{question: Q{n}?, answer: A{n}.}}\n")).collect();
    let leaf = format!("espalier: 1\ncreated_by: me\ndomain: d\ndocument: {document}\nseed_examples:\n{seeds}");
    for (name, text) in [
        ("tree/a/leaf/qna.yaml", leaf.as_str()),
        ("tree/a/leaf/one.md", "# One\n\nThe first.\r\n"),
        ("tree/a/leaf/pages/two.txt", "The second.\n"),
        ("tree/a/leaf/pages/deep/three.html", "<h1>Three</h1><p>The third.</p>"),
        ("tree/a/leaf/pages/.hidden.md", "Hidden.\n"),
        ("tree/shared/four.md", "The fourth.\n"),
        ("tree/a/leaf/empty.md", " \n"),
        ("outside.md", "Not for us.\n"),
        ("clone/.git/HEAD", "ref: refs/heads/main\n"),
        ("clone/.git/refs/heads/main", "0123456789abcdef0123456789abcdef01234567\n"),
        ("clone/docs/page.md", "A page.\n"),
        ("clone/docs/code.rs", "fn main() {}\n"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("outside.md"), folder.path().join("tree/a/leaf/link.md")).unwrap();
    folder
}

fn leaf(folder: &Path) -> Result<Leaf, String> {
    match read_tree(&folder.join("tree")) {
        Ok(tree) => Ok(tree.leaves[0].clone()),
        Err(findings) => {
            let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
            Err(errors.map(|finding| finding.message).collect::<Vec<_>>().join("; "))
        }
    }
}

fn texts(document: &str) -> Result<Vec<String>, String> {
    let folder = tree(document);
    let leaf = leaf(folder.path())?;
    Ok(leaf.documents.iter().map(|document| document.text.trim().replace('\n', "|")).collect())
}

#[test]
fn every_form_gives_its_texts() {
    let ok = |texts: &[&str]| Ok::<_, String>(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(texts("{path: one.md}"), ok(&["# One||The first."]));
    assert_eq!(texts("{path: ../../shared/four.md}"), ok(&["The fourth."]));
    assert_eq!(texts("{text: Here.}"), ok(&["Here."]));
    assert_eq!(texts("{glob: 'pages/**/*'}"), ok(&["# Three||The third.", "The second."]));
    assert_eq!(texts("{glob: ../../shared/*.md}"), ok(&["The fourth."]));
    assert_eq!(
        texts("[{path: one.md}, {glob: '*.md', }]").map(|texts| texts.len()).unwrap_err(),
        "the document empty.md is empty"
    );
    assert_eq!(
        texts("\n  - path: one.md\n  - glob: 'o*.md'\n  - text: Here."),
        ok(&["# One||The first.", "Here."]),
        "a file that is named twice counts once"
    );
}

#[test]
fn nothing_comes_from_outside_of_the_tree() {
    let outside = |name: &str| Err::<Vec<String>, _>(format!("the document {name} lies outside the tree"));
    for name in ["../../../outside.md", "/etc/passwd", "link.md", "../../../nowhere/x.md"] {
        assert_eq!(texts(&format!("{{path: {name}}}")), outside(name));
    }
    for name in ["../../../*.md", "/etc/*", "pages/../../../../*.md"] {
        assert_eq!(texts(&format!("{{glob: '{name}'}}")), outside(name));
    }
    // A link is not followed by a pattern either.
    assert_eq!(texts("{glob: 'l*.md'}"), Err("no file matches l*.md".to_owned()));
    assert_eq!(texts("{repo: ../../../clone, commit: '0123', patterns: ['../*.md']}"), outside("../*.md"));
}

#[test]
fn a_clone_on_this_machine_is_read() {
    let page = Ok(vec!["A page.".to_owned()]);
    assert_eq!(texts("{repo: ../../../clone, commit: '0123456', patterns: [docs/*.md]}"), page);
    assert_eq!(texts("{repo: https://example.org/x.git, commit: '0123456', patterns: [docs/*.md]}"), Ok(Vec::new()));
    let folder = tree("{text: Here.}");
    let url = format!("file://{}", folder.path().join("clone").display());
    let pairs =
        "\n      - {question: a, answer: b}\n      - {question: c, answer: d}\n      - {question: e, answer: f}\n";
    let seeds: String = (0..5).map(|n| format!("  - context: C{n}\n    questions_and_answers:{pairs}")).collect();
    let text = format!(
        "version: 3\ncreated_by: me\ndomain: d\ndocument_outline: o\nseed_examples:\n{seeds}document:\n  repo: {url}\n  commit: 9999999\n  patterns: [docs/*.md]\n"
    );
    fs::write(folder.path().join("tree/a/leaf/qna.yaml"), text.replace("9999999", "'9999999'")).unwrap();
    let read = read_tree(&folder.path().join("tree")).unwrap();
    assert_eq!(read.leaves[0].documents[0].text, "A page.\n");
    assert!(read.notes[0].message.contains("is at 0123456789ab, and the leaf names 9999999"), "{}", read.notes[0]);
}

#[test]
fn mistakes_in_documents_are_named() {
    for (document, message) in [
        ("{path: gone.md}", "the document gone.md cannot be read"),
        ("{path: empty.md}", "the document empty.md is empty"),
        ("{path: one.md, text: x}", "a document is one of path, glob, text, repo, this has path and text"),
        ("{paths: one.md}", "`path` is missing in `document`"),
        ("{path: one.md, colour: red}", "unknown key `colour` in `document`"),
        ("[]", "`document` is an empty list"),
        ("{glob: '[a'}", "the pattern [a cannot be used"),
        ("{repo: x, commit: c, patterns: []}", "`patterns` is empty"),
        ("one.md", "`document` is a mapping of keys to values, this is text"),
    ] {
        let found = texts(document).unwrap_err();
        assert!(found.contains(message), "{document}: {found}");
    }
}
