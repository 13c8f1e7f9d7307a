//! The body of a request to `pipeline serve`, behind a byte that chooses between conversation and text.
#![no_main]

use espalier_inference::Overflow;
use espalier_inference::openai::{Defaults, parse_body, read_chat, read_completion};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let Ok(object) = parse_body(body) else { return };
    let defaults = Defaults { seed: 1, overflow: Overflow::Refuse, max_tokens: 16 };
    let asked = if kind % 2 == 0 {
        read_chat(&object, &defaults)
    } else {
        read_completion(&object, &defaults).map(|read| read.asked)
    };
    if let Ok(asked) = asked
        && let Some(constraint) = &asked.request.constraint
    {
        let _ = constraint.validate();
    }
});
