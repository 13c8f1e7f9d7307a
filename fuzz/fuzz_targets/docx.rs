//! A zip archive of any bytes, taken for a Word document.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../document.rs"]
mod document;
use document::read;

fuzz_target!(|data: &[u8]| {
    read("pond.docx", data);
});
