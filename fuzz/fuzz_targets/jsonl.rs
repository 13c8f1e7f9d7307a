//! The held-out test of a leaf: lines of JSON with any bytes in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    scratch::file("tree/leaf/pond.md", b"# A pond\n\nA green frog lived in the pond.\n");
    scratch::file("tree/leaf/test.jsonl", data);
    let leaf =
        scratch::file("tree/leaf/qna.yaml", include_bytes!("../../taxonomy/examples/tiny/knowledge/the_pond/qna.yaml"));
    let _ = espalier_taxonomy::read_tree(&leaf);
});
