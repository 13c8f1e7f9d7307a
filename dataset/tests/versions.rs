//! A data set in versions: what each holds, what it costs, and what may become of its files.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use espalier_dataset::{DatasetError, Origin, Row, RowSource, Turn, Verdict, Versions, difference, write_parquet};

fn row(leaf: &str, index: u64, answer: &str) -> Row {
    Row {
        id: format!("{leaf}-{index}"),
        leaf: leaf.to_owned(),
        index,
        turns: vec![Turn::new("user", "Q"), Turn::new("assistant", answer)],
        verdict: Verdict::Accepted,
        ..Row::default()
    }
}

fn given(rows: &[Row]) -> impl Iterator<Item = Result<Row, DatasetError>> + use<> {
    let rows = rows.to_vec();
    rows.into_iter().map(Ok)
}

fn read(folder: &Path, version: Option<u32>) -> Vec<Row> {
    RowSource::find(folder, version).unwrap().rows().map(Result::unwrap).collect()
}

fn parts(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("parts")).unwrap().count()
}

#[test]
fn every_version_is_read_again_and_shares_what_did_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let versions = Versions::new(folder);
    let first = [row("a", 0, "one"), row("a", 1, "two"), row("b", 0, "three")];
    let second = [row("a", 0, "one"), row("a", 1, "two"), row("b", 1, "four"), row("c", 0, "five")];
    let origin = Origin { taxonomy: Some("1f".into()), ..Origin::default() };
    assert_eq!(versions.add(given(&first), origin.clone()).unwrap().version, 1);
    // The same again is no version.
    assert_eq!(versions.add(given(&first), origin.clone()).unwrap().version, 1);
    assert_eq!(parts(folder), 2);
    let added = versions.add(given(&second), origin.clone()).unwrap();
    assert_eq!((added.version, added.rows, added.funnel.len()), (2, 4, 3));
    // Leaf a is stored once.
    assert_eq!(parts(folder), 4);
    assert_eq!(read(folder, Some(1)), first);
    assert_eq!(read(folder, Some(2)), second);
    assert_eq!(read(folder, None), second);
    assert_eq!(versions.numbers().unwrap(), [1, 2]);
    versions.verify(&added).unwrap();
    let error = RowSource::find(folder, Some(3)).unwrap_err().to_string();
    assert!(error.ends_with("there is no version 3; there are 1, 2"), "{error}");
}

#[test]
fn two_folders_of_the_same_rows_are_the_same_files() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let rows = [row("a", 0, "one"), row("b", 0, "two")];
    let [a, b] = folders.each_ref().map(|folder| {
        Versions::new(folder.path()).add(given(&rows), Origin::default()).unwrap();
        std::fs::read(folder.path().join("versions/1.json")).unwrap()
    });
    assert_eq!(a, b);
}

#[test]
fn what_fails_half_way_leaves_the_versions_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let versions = Versions::new(folder.path());
    versions.add(given(&[row("a", 0, "one")]), Origin::default()).unwrap();
    let fails = || Err(RowSource::find(folder.path(), Some(9)).unwrap_err());
    let rows = given(&[row("a", 0, "other"), row("b", 0, "x")]).chain(std::iter::once_with(fails));
    versions.add(rows, Origin::default()).unwrap_err();
    assert_eq!(versions.numbers().unwrap(), [1]);
    assert_eq!(read(folder.path(), None), [row("a", 0, "one")]);
}

#[test]
fn changed_parts_and_foreign_versions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let versions = Versions::new(folder.path());
    let version = versions.add(given(&[row("a", 0, "one")]), Origin::default()).unwrap();
    write_parquet(&versions.part_file(&version.parts[0]), &[row("a", 0, "other")]).unwrap();
    let error = versions.verify(&version).unwrap_err().to_string();
    assert!(error.contains("was changed since it was written"), "{error}");
    let file = folder.path().join("versions/1.json");
    let text = std::fs::read_to_string(&file).unwrap().replace(&version.parts[0].hash, "../../secret");
    std::fs::write(&file, text).unwrap();
    let error = versions.read(None).unwrap_err().to_string();
    assert!(error.ends_with("\"../../secret\" is not the hash of a part"), "{error}");
    std::fs::write(&file, "{}").unwrap();
    assert!(versions.read(None).unwrap_err().to_string().contains("1.json: this is not a version"));
    let none = tempfile::tempdir().unwrap();
    assert!(RowSource::find(none.path(), None).unwrap_err().to_string().contains("neither versions/ nor rows.parquet"));
    assert!(RowSource::find(&none.path().join("x.parquet"), Some(1)).is_err());
}

#[test]
fn a_difference_names_rows_and_fields() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a.parquet", "b.parquet"].map(|name| folder.path().join(name));
    write_parquet(&a, &[row("a", 0, "one"), row("a", 1, "two"), row("a", 2, "three")]).unwrap();
    let changed = Row { reason: "exact".into(), ..row("a", 1, "other") };
    write_parquet(&b, &[row("b", 0, "new"), changed, row("a", 0, "one")]).unwrap();
    let [a, b] = [a, b].map(|path| RowSource::find(&path, None).unwrap());
    let found = difference(&a, &b).unwrap();
    let ids = |changes: &[espalier_dataset::Change]| -> Vec<String> {
        changes.iter().map(|change| format!("{} {}", change.id, change.fields.join(" "))).collect()
    };
    assert_eq!(ids(&found.added), ["b-0 "]);
    assert_eq!(ids(&found.removed), ["a-2 "]);
    assert_eq!(ids(&found.changed), ["a-1 turns reason"]);
    assert_eq!(found.same, 1);
}
