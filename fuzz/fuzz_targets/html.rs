//! A web page of any text.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../document.rs"]
mod document;
use document::read;

fuzz_target!(|data: &[u8]| {
    read("pond.html", data);
});
