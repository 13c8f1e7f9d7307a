//! A file of training data: the first byte is its format, the rest any bytes.
#![no_main]

use espalier_dataset::{Format, Records};
use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let path = scratch::file("rows", rest);
    if let Ok(records) = Records::open(&path, Format::ALL.get(usize::from(first)).copied()) {
        for record in records.flatten() {
            let _ = record.example();
        }
    }
});
