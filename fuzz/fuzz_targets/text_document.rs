//! A byte for the name, then a document of text.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../document.rs"]
mod document;
use document::read;

fuzz_target!(|data: &[u8]| {
    let Some((name, data)) = data.split_first() else { return };
    let names = ["pond.md", "pond.txt", "pond.csv", "pond.tsv", "pond.json", "pond.jsonl", "pond.rs"];
    read(names[usize::from(*name) % names.len()], data);
});
