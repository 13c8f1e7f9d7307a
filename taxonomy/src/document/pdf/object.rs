//! Objects of a PDF and how they are written.

use std::collections::HashMap;
use std::rc::Rc;

/// A value of a file or of a page's program.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Null,
    Boolean(bool),
    Number(f64),
    String(Rc<[u8]>),
    Name(Rc<[u8]>),
    Array(Rc<[Object]>),
    Dictionary(Rc<Dictionary>),
    /// A stream: its dictionary, and where its bytes stand in the file.
    Stream(Rc<Dictionary>, usize, usize),
    /// An object by number.
    Reference(u32),
    /// A word that is none of these: an operator, `obj`, `endobj`.
    Keyword(Rc<[u8]>),
}

pub(super) type Dictionary = HashMap<Rc<[u8]>, Object>;

impl Object {
    pub fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub fn name(&self) -> Option<&[u8]> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }

    pub fn array(&self) -> Option<&[Object]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    /// The dictionary; of a stream, its own.
    pub fn dictionary(&self) -> Option<&Rc<Dictionary>> {
        if let Self::Dictionary(entries) | Self::Stream(entries, ..) = self { Some(entries) } else { None }
    }
}

pub(super) fn is_white(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}

/// Reads objects one after another. Never fails: what makes no sense is null or a keyword, and each call goes on.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    pub at: usize,
    depth: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(bytes: &'a [u8], at: usize, depth: usize) -> Self {
        Self { bytes, at, depth }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn skip_white(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                while self.peek().is_some_and(|byte| byte != b'\n' && byte != b'\r') {
                    self.at += 1;
                }
            } else if is_white(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// The next object; none at the end.
    pub fn next(&mut self) -> Option<Object> {
        self.skip_white();
        let byte = self.peek()?;
        Some(match byte {
            b'(' => self.literal_string(),
            b'<' if self.bytes.get(self.at + 1) == Some(&b'<') => self.dictionary(),
            b'<' => self.hexadecimal_string(),
            b'/' => {
                self.at += 1;
                Object::Name(self.name())
            }
            b'[' => {
                self.at += 1;
                Object::Array(self.until(b"]").into())
            }
            b'+' | b'-' | b'.' | b'0'..=b'9' => self.number_or_reference(),
            b']' | b'{' | b'}' | b')' => self.sign(1),
            b'>' => self.sign(if self.bytes.get(self.at + 1) == Some(&b'>') { 2 } else { 1 }),
            _ => match self.word() {
                b"true" => Object::Boolean(true),
                b"false" => Object::Boolean(false),
                b"null" => Object::Null,
                word => Object::Keyword(word.into()),
            },
        })
    }

    fn sign(&mut self, length: usize) -> Object {
        let start = self.at;
        self.at += length;
        Object::Keyword(self.bytes[start..self.at].into())
    }

    fn word(&mut self) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(|byte| !is_white(byte) && !is_delimiter(byte)) {
            self.at += 1;
        }
        // A byte that begins nothing is a word of its own.
        self.at = self.at.max(start + 1);
        &self.bytes[start..self.at]
    }

    /// Objects up to a closing sign. Nesting that is too deep ends the list.
    fn until(&mut self, end: &[u8]) -> Vec<Object> {
        let mut values = Vec::new();
        if self.depth == 0 {
            return values;
        }
        self.depth -= 1;
        while let Some(value) = self.next() {
            match value {
                Object::Keyword(word) if *word == *end => break,
                // The object ended without the sign: what follows is another.
                Object::Keyword(word) if matches!(&*word, b"endobj" | b"stream" | b"endstream" | b"obj") => {
                    self.at -= word.len();
                    break;
                }
                value => values.push(value),
            }
        }
        self.depth += 1;
        values
    }

    fn dictionary(&mut self) -> Object {
        self.at += 2;
        let mut values = self.until(b">>").into_iter();
        let mut entries = Dictionary::new();
        while let Some(key) = values.next() {
            if let (Object::Name(key), Some(value)) = (key, values.next()) {
                entries.insert(key, value);
            }
        }
        Object::Dictionary(Rc::new(entries))
    }

    fn name(&mut self) -> Rc<[u8]> {
        let start = self.at;
        while self.peek().is_some_and(|byte| !is_white(byte) && !is_delimiter(byte)) {
            self.at += 1;
        }
        let raw = &self.bytes[start..self.at];
        if !raw.contains(&b'#') {
            return raw.into();
        }
        let mut name = Vec::with_capacity(raw.len());
        let mut index = 0;
        while index < raw.len() {
            let digits = raw.get(index + 1..index + 3).and_then(|digits| Some((hex(digits[0])?, hex(digits[1])?)));
            match digits {
                Some((high, low)) if raw[index] == b'#' => {
                    name.push(16 * high + low);
                    index += 3;
                }
                _ => {
                    name.push(raw[index]);
                    index += 1;
                }
            }
        }
        name.into()
    }

    fn number_or_reference(&mut self) -> Object {
        let word = self.word();
        let number = number(word);
        // `12 0 R`, told by looking ahead.
        if word.iter().all(u8::is_ascii_digit) && number <= f64::from(u32::MAX) {
            let after = self.at;
            self.skip_white();
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) && self.word().iter().all(u8::is_ascii_digit) {
                self.skip_white();
                if self.peek() == Some(b'R') && self.word() == b"R" {
                    return Object::Reference(number as u32);
                }
            }
            self.at = after;
        }
        Object::Number(number)
    }

    fn literal_string(&mut self) -> Object {
        self.at += 1;
        let mut text = Vec::new();
        let mut open = 1_usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => open += 1,
                b')' => {
                    open -= 1;
                    if open == 0 {
                        break;
                    }
                }
                b'\\' => {
                    self.escape(&mut text);
                    continue;
                }
                _ => {}
            }
            text.push(byte);
        }
        Object::String(text.into())
    }

    fn escape(&mut self, text: &mut Vec<u8>) {
        let Some(byte) = self.peek() else { return };
        self.at += 1;
        match byte {
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' => text.push(8),
            b'f' => text.push(0x0c),
            b'\r' => self.at += usize::from(self.peek() == Some(b'\n')),
            b'\n' => {}
            b'0'..=b'7' => {
                let mut code = u32::from(byte - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else { break };
                    code = 8 * code + u32::from(digit - b'0');
                    self.at += 1;
                }
                text.push(code as u8);
            }
            other => text.push(other),
        }
    }

    fn hexadecimal_string(&mut self) -> Object {
        self.at += 1;
        let mut text = Vec::new();
        let mut half = None;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if byte == b'>' {
                break;
            }
            let Some(digit) = hex(byte) else { continue };
            match half.take() {
                Some(high) => text.push(16 * high + digit),
                None => half = Some(digit),
            }
        }
        if let Some(high) = half {
            text.push(16 * high);
        }
        Object::String(text.into())
    }
}

pub(super) fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// A number as files write it; what is none counts 0.
fn number(word: &[u8]) -> f64 {
    let text = std::str::from_utf8(word).unwrap_or_default();
    let parsed = text.parse::<f64>().ok().or_else(|| {
        // `--5` and `1.2-3` occur in files of old programs.
        let cleaned = text.trim_start_matches(['-', '+']);
        let cleaned = &cleaned[..cleaned.find(['-', '+']).unwrap_or(cleaned.len())];
        cleaned.parse::<f64>().ok().map(|number| if text.starts_with('-') { -number } else { number })
    });
    parsed.filter(|number| number.is_finite()).unwrap_or(0.0)
}
