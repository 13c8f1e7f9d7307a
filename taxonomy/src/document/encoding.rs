//! From bytes to text.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::ExtractError;

/// How many bytes are looked at to tell text from anything else.
const SAMPLE: usize = 64 << 10;

/// A text with `\n` as line end, and what was done to get at it.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub text: String,
    pub warnings: Vec<String>,
}

/// Reads UTF-8, UTF-16 with a byte order mark, and everything else as Windows-1252 (which holds Latin-1).
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, ExtractError> {
    decode_as(bytes, None)
}

/// The same where the file names its own encoding; a byte order mark is believed before it.
pub(super) fn decode_as(bytes: &[u8], declared: Option<&'static Encoding>) -> Result<Decoded, ExtractError> {
    let mut warnings = Vec::new();
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, length)) => (encoding, &bytes[length..]),
        None => (UTF_8, bytes),
    };
    let text = if encoding == UTF_16LE || encoding == UTF_16BE {
        warnings.push(format!("it is in {}: read, but UTF-8 is safer", encoding.name()));
        let (text, lost) = encoding.decode_without_bom_handling(bytes);
        if lost {
            warnings.push("some of it is not valid in that encoding and became \u{fffd}".to_owned());
        }
        text.into_owned()
    } else {
        refuse_binary(bytes)?;
        match (std::str::from_utf8(bytes), declared) {
            (Ok(text), _) => text.to_owned(),
            (Err(error), declared) => {
                let encoding = declared.filter(|encoding| *encoding != UTF_8).unwrap_or(WINDOWS_1252);
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
                warnings.push(format!("it is not UTF-8 from line {line} on and was read as {}", encoding.name()));
                encoding.decode_without_bom_handling(bytes).0.into_owned()
            }
        }
    };
    Ok(Decoded { text: clean(text, &mut warnings), warnings })
}

/// Text has hardly any control characters.
fn refuse_binary(bytes: &[u8]) -> Result<(), ExtractError> {
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let control = sample.iter().filter(|&&byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c)).count();
    if control * 50 > sample.len() {
        return Err(ExtractError::Binary { control, of: sample.len() });
    }
    Ok(())
}

/// One kind of line end, and no control characters but tabs.
fn clean(text: String, warnings: &mut Vec<String>) -> String {
    let strange = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}' | '\u{85}');
    let dropped = text.chars().filter(|&c| strange(c)).count();
    if dropped > 0 {
        warnings.push(format!("control characters were left out ({dropped}; NUL and the like)"));
    }
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' => {
                if characters.peek() != Some(&'\n') {
                    clean.push('\n');
                }
            }
            '\u{c}' => clean.push_str("\n\n"),
            '\u{85}' | '\u{2028}' => clean.push('\n'),
            '\u{feff}' => {}
            c if strange(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encoding_is_read_and_said() {
        let words = "Grüße aus Köln";
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(words.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let big: Vec<u8> = [0xfe, 0xff].into_iter().chain(words.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        let latin: Vec<u8> = words.chars().map(|c| c as u8).collect();
        for (bytes, warning) in [
            (utf16, "it is in UTF-16LE: read, but UTF-8 is safer"),
            (big, "it is in UTF-16BE: read, but UTF-8 is safer"),
            (latin, "it is not UTF-8 from line 1 on and was read as windows-1252"),
        ] {
            let decoded = decode(&bytes).unwrap();
            assert_eq!(decoded.text, words);
            assert_eq!(decoded.warnings, [warning]);
        }
        let marked = decode(b"\xef\xbb\xbfone\r\ntwo\rthree\n").unwrap();
        assert_eq!((marked.text.as_str(), marked.warnings.len()), ("one\ntwo\nthree\n", 0));
    }

    #[test]
    fn a_few_nul_bytes_are_left_out_and_many_are_no_text() {
        let mut text = "word ".repeat(40).into_bytes();
        text[7] = 0;
        let decoded = decode(&text).unwrap();
        assert!(decoded.text.starts_with("word wod word"));
        assert_eq!(decoded.warnings, ["control characters were left out (1; NUL and the like)"]);
        assert!(matches!(decode(&[0, 1, 2, 3, b'a', b'b']), Err(ExtractError::Binary { control: 4, of: 6 })));
    }
}
