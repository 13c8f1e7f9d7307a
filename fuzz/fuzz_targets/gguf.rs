//! A GGUF file of any bytes: first the file's own layout, then the model, its tokenizer and one row of each tensor.
#![no_main]

use espalier_model::{Model, SpecialTokens, gguf};
use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    let file = scratch::file("model.gguf", data);
    if let Ok(read) = gguf::GgufFile::open(&file) {
        for tensor in read.tensors() {
            let _ = read.data(tensor);
        }
    }
    let Ok(model) = Model::open(&file) else { return };
    let ids = model.tokenizer().encode("Once upon <a> time, 12 é", SpecialTokens::Parse);
    let _ = model.tokenizer().decode(&ids);
    let tensors: Vec<_> = model.tensors().cloned().collect();
    for info in tensors {
        if let Ok(tensor) = model.tensor(&info.name) {
            let mut row = vec![0.0; info.columns];
            let _ = tensor.row(0, &mut row);
        }
    }
});
