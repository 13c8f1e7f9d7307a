//! What the codes of a font mean, and how wide they are.

use std::collections::HashMap;

use super::file::Pdf;
use super::glyph_names;
use super::object::{Dictionary, Lexer, Object};
use crate::document::ExtractError;

/// Most codes that a font may give a meaning.
const MAX_CODES: usize = 200_000;

/// One code that is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Glyph {
    /// Its text; none where the file does not tell.
    pub text: Option<String>,
    /// Its width in parts of the font's size.
    pub width: f64,
    /// Whether the code is the single byte 32, which word spacing applies to.
    pub is_space_code: bool,
}

#[derive(Debug, Default)]
pub(super) struct Font {
    /// Two bytes a code; else one.
    wide: bool,
    /// Codes that are UTF-16 themselves.
    unicode_codes: bool,
    to_unicode: HashMap<u32, String>,
    encoding: HashMap<u32, String>,
    widths: HashMap<u32, f64>,
    default_width: Option<f64>,
    pub bold: bool,
}

impl Font {
    pub fn read(pdf: &Pdf<'_>, entries: &Dictionary) -> Result<Self, ExtractError> {
        let mut font = Self { wide: pdf.get(entries, b"Subtype").name() == Some(b"Type0"), ..Self::default() };
        let name = pdf.get(entries, b"BaseFont");
        let name = String::from_utf8_lossy(name.name().unwrap_or_default()).to_ascii_lowercase();
        font.bold = ["bold", "black", "heavy", "semibold"].iter().any(|word| name.contains(word));
        let map = pdf.get(entries, b"ToUnicode");
        if matches!(map, Object::Stream(..)) {
            font.to_unicode = to_unicode(&pdf.unpacked(&map)?);
        }
        if font.wide {
            font.read_wide(pdf, entries);
        } else {
            font.read_narrow(pdf, entries);
        }
        Ok(font)
    }

    fn read_wide(&mut self, pdf: &Pdf<'_>, entries: &Dictionary) {
        let encoding = pdf.get(entries, b"Encoding");
        let encoding = encoding.name().unwrap_or_default();
        self.unicode_codes =
            encoding.starts_with(b"Uni") && (encoding.ends_with(b"UCS2-H") || encoding.ends_with(b"UTF16-H"));
        let descendants = pdf.get(entries, b"DescendantFonts");
        let descendant = descendants.array().and_then(<[Object]>::first).map(|object| pdf.resolve(object));
        let Some(descendant) = descendant.as_ref().and_then(Object::dictionary) else { return };
        self.default_width = Some(pdf.get(descendant, b"DW").number().unwrap_or(1000.0) / 1000.0);
        let widths = pdf.get(descendant, b"W");
        let mut values = widths.array().unwrap_or_default().iter().map(|value| pdf.resolve(value));
        // `first [w w w]` or `first last w`.
        while let (Some(first), Some(second)) = (values.next(), values.next()) {
            let Some(first) = first.number().map(|first| first as u32) else { return };
            match second {
                Object::Array(list) => {
                    for (code, width) in (first..).zip(list.iter()) {
                        self.width(code, &pdf.resolve(width));
                    }
                }
                last => {
                    let (Some(last), Some(width)) = (last.number(), values.next()) else { return };
                    for code in first..=(last as u32).min(first.saturating_add(0xffff)) {
                        self.width(code, &width);
                    }
                }
            }
        }
    }

    fn width(&mut self, code: u32, width: &Object) {
        if let Some(width) = width.number()
            && self.widths.len() < MAX_CODES
        {
            self.widths.insert(code, width / 1000.0);
        }
    }

    fn read_narrow(&mut self, pdf: &Pdf<'_>, entries: &Dictionary) {
        let first = pdf.get(entries, b"FirstChar").number().unwrap_or(0.0) as u32;
        let widths = pdf.get(entries, b"Widths");
        for (code, width) in (first..256).zip(widths.array().unwrap_or_default()) {
            self.width(code, &pdf.resolve(width));
        }
        let encoding = pdf.get(entries, b"Encoding");
        let base = match &encoding {
            Object::Dictionary(entries) => pdf.get(entries, b"BaseEncoding"),
            other => other.clone(),
        };
        for code in 0..=255_u8 {
            if let Some(text) = base_encoding(base.name().unwrap_or_default(), code) {
                self.encoding.insert(u32::from(code), text);
            }
        }
        let Some(differences) = encoding.dictionary().map(|entries| pdf.get(entries, b"Differences")) else { return };
        let mut code = 0_u32;
        for value in differences.array().unwrap_or_default() {
            match pdf.resolve(value) {
                Object::Number(number) => code = number as u32,
                Object::Name(name) => {
                    let text = std::str::from_utf8(&name).ok().and_then(glyph_names::text);
                    match text {
                        Some(text) => self.encoding.insert(code, text),
                        None => self.encoding.remove(&code),
                    };
                    code = code.saturating_add(1);
                }
                _ => {}
            }
        }
    }

    /// The codes of a string.
    pub fn glyphs(&self, string: &[u8]) -> Vec<Glyph> {
        let length = if self.wide { 2 } else { 1 };
        string
            .chunks(length)
            .map(|bytes| {
                let code = bytes.iter().fold(0_u32, |code, &byte| code << 8 | u32::from(byte));
                let own = || {
                    self.unicode_codes
                        .then(|| encoding_rs::UTF_16BE.decode_without_bom_handling(bytes).0.into_owned())
                        .or_else(|| self.encoding.get(&code).cloned())
                };
                let text = self.to_unicode.get(&code).cloned().or_else(own);
                let width = self.widths.get(&code).copied().or(self.default_width);
                Glyph {
                    width: width.unwrap_or_else(|| usual_width(text.as_deref())),
                    text: text.filter(|text| !text.chars().any(|c| c.is_control() && c != '\t')),
                    is_space_code: !self.wide && code == 32,
                }
            })
            .collect()
    }
}

/// Widths of the fonts that every reader has, near enough to tell words apart.
fn usual_width(text: Option<&str>) -> f64 {
    match text.and_then(|text| text.chars().next()) {
        Some('i' | 'j' | 'l' | 't' | 'f' | 'I' | '.' | ',' | ':' | ';' | '\'' | '!' | '|' | ' ' | '(' | ')') => 0.28,
        Some('m' | 'w' | 'M' | 'W' | '—') => 0.85,
        Some(c) if c.is_uppercase() => 0.68,
        _ => 0.53,
    }
}

fn base_encoding(name: &[u8], code: u8) -> Option<String> {
    if code < 32 {
        return None;
    }
    let encoding = match name {
        b"MacRomanEncoding" => encoding_rs::MACINTOSH,
        b"WinAnsiEncoding" => encoding_rs::WINDOWS_1252,
        _ => return standard_encoding(code),
    };
    Some(encoding.decode_without_bom_handling(&[code]).0.into_owned())
}

fn standard_encoding(code: u8) -> Option<String> {
    let name = match code {
        0x27 => "quoteright",
        0x60 => "quoteleft",
        0x20..=0x7e => return Some(char::from(code).to_string()),
        0xa1 => "exclamdown",
        0xa3 => "sterling",
        0xa7 => "section",
        0xaa => "quotedblleft",
        0xab => "guillemotleft",
        0xae => "fi",
        0xaf => "fl",
        0xb1 => "endash",
        0xb7 => "bullet",
        0xb9 => "quotedblbase",
        0xba => "quotedblright",
        0xbb => "guillemotright",
        0xbc => "ellipsis",
        0xd0 => "emdash",
        0xe1 => "AE",
        0xe8 => "Lslash",
        0xe9 => "Oslash",
        0xea => "OE",
        0xf1 => "ae",
        0xf5 => "dotlessi",
        0xf8 => "lslash",
        0xf9 => "oslash",
        0xfa => "oe",
        0xfb => "germandbls",
        _ => return None,
    };
    glyph_names::text(name)
}

/// The meanings that a font's own table gives its codes.
fn to_unicode(program: &[u8]) -> HashMap<u32, String> {
    let mut map = HashMap::new();
    let mut lexer = Lexer::new(program, 0, 4);
    let mut operands: Vec<Object> = Vec::new();
    while let Some(object) = lexer.next() {
        let Object::Keyword(word) = &object else {
            operands.push(object);
            continue;
        };
        match &**word {
            b"endbfchar" => {
                for pair in operands.chunks_exact(2) {
                    if let [Object::String(code), Object::String(text)] = pair {
                        insert(&mut map, number(code), utf16(text));
                    }
                }
            }
            b"endbfrange" => {
                for triple in operands.chunks_exact(3) {
                    let [Object::String(first), Object::String(last), target] = triple else { continue };
                    let (first, last) = (number(first), number(last).min(number(first).saturating_add(0xffff)));
                    for (index, code) in (first..=last).enumerate() {
                        match target {
                            Object::String(text) => {
                                insert(&mut map, code, utf16(text).map(|text| advanced(&text, index)));
                            }
                            Object::Array(texts) => match texts.get(index) {
                                Some(Object::String(text)) => insert(&mut map, code, utf16(text)),
                                _ => break,
                            },
                            _ => break,
                        }
                    }
                }
            }
            _ => {}
        }
        operands.clear();
        if map.len() >= MAX_CODES {
            break;
        }
    }
    map
}

fn insert(map: &mut HashMap<u32, String>, code: u32, text: Option<String>) {
    if let Some(text) = text
        && map.len() < MAX_CODES
    {
        map.insert(code, text);
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |code, &byte| code << 8 | u32::from(byte))
}

fn utf16(bytes: &[u8]) -> Option<String> {
    /// A code stands for a few characters at most: a longer text is a mistake, or worse.
    const LONGEST: usize = 64;
    if bytes.len() == 1 {
        return Some(char::from(bytes[0]).to_string());
    }
    let (text, lost) = encoding_rs::UTF_16BE.decode_without_bom_handling(bytes.get(..bytes.len().min(LONGEST))?);
    (!lost && !text.is_empty()).then(|| text.into_owned())
}

/// The text whose last character is so much further on.
fn advanced(text: &str, by: usize) -> String {
    let mut result = text.to_owned();
    if by > 0
        && let Some(last) = result.pop()
    {
        result.push(char::from_u32((last as u32).saturating_add(by as u32)).unwrap_or('\u{fffd}'));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_meanings_are_read_in_all_their_forms() {
        let program = b"/CIDInit /ProcSet findresource begin 1 begincodespacerange <0000> <ffff> endcodespacerange
            2 beginbfchar <0003> <0020> <0004><00660069> endbfchar
            2 beginbfrange <0010> <0012> <0041> <0020> <0021> [<0061> <D83DDE00>] endbfrange endcmap";
        let map = to_unicode(program);
        let of = |code: u32| map.get(&code).map_or("", String::as_str);
        assert_eq!([of(3), of(4), of(0x10), of(0x12), of(0x20), of(0x21)], [" ", "fi", "A", "C", "a", "😀"]);
        let hostile = b"1 beginbfrange <00000000> <ffffffff> <0041> endbfrange";
        assert!(to_unicode(hostile).len() <= 0x10000);
    }
}
