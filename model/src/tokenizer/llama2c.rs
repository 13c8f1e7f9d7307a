//! The tokenizer file of llama2.c: i32 longest token, then for each token f32 score, i32 length and the bytes.

use super::vocabulary::{SPACE, TokenKind};
use super::{Parts, SpecialIds, Tokenizer};
use crate::ModelError;
use crate::error::DOWNLOAD_AGAIN;

impl Tokenizer {
    /// From the bytes of a llama2.c tokenizer file such as `tok512.bin`; it names no counts, so that every token to its end is read.
    ///
    /// Ids 0 to 2 become `<unk>`, `<s>` and `</s>`, the next 256 the bytes, as a converter to GGUF would write them.
    pub fn from_llama2c(bytes: &[u8]) -> Result<Self, ModelError> {
        let mut rest = bytes;
        take_word(&mut rest)?;
        let mut parts = Parts::default();
        while !rest.is_empty() {
            let id = parts.texts.len();
            let score = f32::from_le_bytes(take_word(&mut rest)?);
            let length =
                usize::try_from(i32::from_le_bytes(take_word(&mut rest)?)).ok().filter(|&length| length <= rest.len());
            let Some((text, after)) = length.and_then(|length| rest.split_at_checked(length)) else {
                return Err(damaged(format!("token {id} reaches beyond the end of the file")));
            };
            rest = after;
            let text = std::str::from_utf8(text).map_err(|_| damaged(format!("token {id} is not UTF-8")))?;
            let (text, kind) = match id {
                0 => (text.to_owned(), TokenKind::Unknown),
                1 => ("<s>".to_owned(), TokenKind::Control),
                2 => ("</s>".to_owned(), TokenKind::Control),
                3..259 => (text.to_owned(), TokenKind::Byte),
                _ => (text.replace(' ', SPACE.encode_utf8(&mut [0; 4])), TokenKind::Normal),
            };
            parts.texts.push(text);
            parts.kinds.push(kind);
            parts.scores.push(score);
        }
        if parts.texts.len() < 259 {
            return Err(damaged(format!(
                "{} tokens, where three special tokens and 256 bytes come first",
                parts.texts.len()
            )));
        }
        parts.ids = SpecialIds { bos: Some(1), eos: Some(2), unknown: Some(0), ..SpecialIds::default() };
        Ok(Self::sentencepiece(parts))
    }
}

fn damaged(problem: impl Into<String>) -> ModelError {
    ModelError::invalid("llama2.c tokenizer", problem, DOWNLOAD_AGAIN)
}

fn take_word(rest: &mut &[u8]) -> Result<[u8; 4], ModelError> {
    let Some((word, after)) = rest.split_first_chunk::<4>() else {
        return Err(damaged("the file ends in the middle of a number"));
    };
    *rest = after;
    Ok(*word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::SpecialTokens;

    const TOK512: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/model/tok512.bin"));

    #[test]
    fn the_vocabulary_of_stories260k() {
        let tokenizer = Tokenizer::from_llama2c(TOK512).unwrap();
        assert_eq!(tokenizer.vocabulary(), 512);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
        assert!(tokenizer.adds_bos() && tokenizer.is_end_of_generation(2));
        let text = "Once upon a time, there was a little girl named Lily. Ünïcode 語\n";
        let ids = tokenizer.encode(text, SpecialTokens::AsText);
        // What llama2.c's `run` gives for the prompt of its README.
        assert_eq!(tokenizer.encode("Once upon a time", SpecialTokens::AsText), [403, 407, 261, 378]);
        assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn a_cut_file_is_refused() {
        for length in [0, 3, 4, 9, 100, TOK512.len() - 1] {
            assert!(Tokenizer::from_llama2c(&TOK512[..length]).is_err(), "{length}");
        }
    }
}
