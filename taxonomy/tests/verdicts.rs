//! The same verdict as `InstructLab`'s own reader, on hundreds of mutated leaves of its public taxonomy.
//!
//! The verdicts were recorded by scripts/taxonomy-verdicts.py; tests/assets/taxonomy-verdicts/README.md has the command.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use espalier_taxonomy::{Diagnostic, Mode, Severity, read_tree_with};
use serde_json::Value;

/// One recorded file.
struct Case {
    name: String,
    path: String,
    content: Vec<u8>,
    /// Accepted by the JSON schema alone.
    schema: bool,
    /// Accepted by the reader as `ilab` calls it.
    ilab: bool,
    /// The reader's first complaint.
    first: String,
}

fn rows(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/assets/taxonomy-verdicts");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cases() -> Vec<Case> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let bases: HashMap<String, String> =
        rows("bases.jsonl").iter().map(|row| (text(row, "base"), text(row, "text"))).collect();
    let case = |row: Value| {
        let mut content = bases[&text(&row, "base")].clone().into_bytes();
        let at = |index: usize| row["at"][index].as_u64().unwrap() as usize;
        let new = match row["with"].as_str() {
            Some(new) => new.as_bytes().to_vec(),
            None => decode_base64(&text(&row, "with_base64")),
        };
        content.splice(at(0)..at(1), new);
        Case {
            name: text(&row, "name"),
            path: text(&row, "path"),
            content,
            schema: row["schema"].as_bool().unwrap(),
            ilab: row["ilab"].as_bool().unwrap(),
            first: text(&row, "first"),
        }
    };
    rows("verdicts.jsonl").into_iter().map(case).collect()
}

fn decode_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut out = Vec::new();
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | alphabet.iter().position(|letter| *letter == digit).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// Whether the file is accepted, and what is said of it.
fn read(file: &Path, mode: Mode) -> (bool, Vec<Diagnostic>) {
    match read_tree_with(file, mode) {
        Ok(tree) => (true, tree.notes),
        Err(findings) => (false, findings),
    }
}

/// Strict reading has their verdict on every file; what reading as usual forgives is listed by the complaint of strict
/// reading.
#[test]
fn strict_reading_accepts_and_refuses_what_instructlab_does() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    assert!(cases.len() >= 200);
    let mut wrong = Vec::new();
    let mut forgiven: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for case in &cases {
        let file = folder.path().join(&case.path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &case.content).unwrap();
        let (strict, findings) = read(&file, Mode::Strict);
        let (usual, _) = read(&file, Mode::Lenient);
        if strict != case.ilab {
            let findings: Vec<String> = findings.iter().map(|found| found.message.clone()).collect();
            wrong.push(format!("{}: theirs {} ({}), ours {findings:?}", case.name, case.ilab, case.first));
            continue;
        }
        let first = findings.into_iter().find(|finding| finding.severity == Severity::Error);
        let repeated = first.as_ref().is_some_and(|finding| finding.message.contains("stands twice"));
        assert!(usual || !strict, "{} is accepted in strict reading alone", case.name);
        assert!(usual || !case.schema || repeated, "{} conforms to the schema and is refused", case.name);
        if usual && !strict {
            forgiven.entry(first.unwrap().message).or_default().push(&case.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let lines: Vec<String> =
        forgiven.iter().map(|(message, names)| format!("{message}\n  {}", names.join("\n  "))).collect();
    insta::assert_snapshot!("forgiven", lines.join("\n"));
}
