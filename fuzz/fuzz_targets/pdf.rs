//! A PDF of any bytes, the magic aside.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../document.rs"]
mod document;
use document::read;

fuzz_target!(|data: &[u8]| {
    let mut bytes = b"%PDF-1.4\n".to_vec();
    bytes.extend_from_slice(data);
    read("pond.pdf", &bytes);
});
