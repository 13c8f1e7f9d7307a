//! A look at rows before training.

use espalier_model::Model;

use crate::tokens::Sequence;

/// The text of a sequence; what the model does not learn stands between `⟦` and `⟧`.
pub fn marked_text(model: &Model, row: &Sequence) -> String {
    let mut text = String::new();
    let mut bytes = Vec::new();
    let mut masked = false;
    let flush = |bytes: &mut Vec<u8>, text: &mut String| {
        text.push_str(&String::from_utf8_lossy(bytes));
        bytes.clear();
    };
    for (token, weight) in row.tokens.iter().zip(&row.weights) {
        if masked == (*weight != 0.0) {
            flush(&mut bytes, &mut text);
            text.push(if masked { '⟧' } else { '⟦' });
            masked = !masked;
        }
        let tokenizer = model.tokenizer();
        if tokenizer.is_special(*token) {
            bytes.extend_from_slice(tokenizer.token_text(*token).as_bytes());
        } else {
            bytes.extend_from_slice(tokenizer.token_bytes(*token));
        }
    }
    flush(&mut bytes, &mut text);
    if masked {
        text.push('⟧');
    }
    text
}
