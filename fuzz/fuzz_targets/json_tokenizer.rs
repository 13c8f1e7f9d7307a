//! `config.json` and `tokenizer.json` of a Hugging Face folder, divided by a zero byte; the weights are good.
#![no_main]

use espalier_model::{Model, SpecialTokens, Tokenizer};
use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    let middle = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (config, tokenizer) = (&data[..middle], data.get(middle + 1..).unwrap_or_default());
    if let Ok(text) = std::str::from_utf8(tokenizer)
        && let Ok(tokenizer) = Tokenizer::from_tokenizer_json(text, None)
    {
        let ids = tokenizer.encode("Once upon <a> time, 12 é", SpecialTokens::Parse);
        let _ = tokenizer.decode(&ids);
    }
    scratch::file("folder/model.safetensors", include_bytes!("../seeds/folder/model.safetensors"));
    scratch::file("folder/tokenizer.json", tokenizer);
    let config = scratch::file("folder/config.json", config);
    if let Some(folder) = config.parent() {
        let _ = Model::open(folder);
    }
});
