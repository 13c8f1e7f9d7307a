//! A leaf of a skills tree of any text, with a document and a held-out test that are good.
#![no_main]

use espalier_taxonomy::ChunkSettings;
use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    scratch::file("tree/leaf/pond.md", b"# A pond\n\nA green frog lived in the pond.\n");
    scratch::file("tree/leaf/test.jsonl", b"{\"question\": \"Where?\", \"answer\": \"In the pond.\"}\n");
    let leaf = scratch::file("tree/leaf/qna.yaml", data);
    if let Ok(tree) = espalier_taxonomy::read_tree(&leaf) {
        for leaf in &tree.leaves {
            for document in &leaf.documents {
                let _ = espalier_taxonomy::chunks(document, &ChunkSettings { max_tokens: 8, overlap: 3 }, &|text: &str| text.len() / 4);
            }
        }
    }
});
