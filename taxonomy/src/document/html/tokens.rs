//! Tags and text of a page, read once from left to right: whatever stands there is something.

use std::borrow::Cow;

use quick_xml::escape::resolve_html5_entity;

/// A piece of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `<name attributes>`; the name as it is written.
    Open { name: &'a str, attributes: &'a str },
    /// `</name>`.
    Close(&'a str),
    /// Text with entities in it.
    Text(&'a str),
    /// What stands in a script, a style or the like.
    Raw(&'a str),
}

/// Elements whose content has no tags.
const RAW: [&str; 9] = ["script", "style", "iframe", "noembed", "noframes", "xmp", "textarea", "title", "svg"];

/// The pieces of a page in order.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    rest: &'a str,
    raw: Option<&'static str>,
}

impl<'a> Tokens<'a> {
    pub fn new(page: &'a str) -> Self {
        Self { rest: page, raw: None }
    }

    fn cut(&mut self, at: usize) -> &'a str {
        let (piece, rest) = self.rest.split_at(at);
        self.rest = rest;
        piece
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some(name) = self.raw.take() {
            let end = end_of_raw(self.rest, name);
            return Some(Token::Raw(self.cut(end)));
        }
        loop {
            if self.rest.is_empty() {
                return None;
            }
            if !self.rest.starts_with('<') {
                let end = self.rest.find('<').unwrap_or(self.rest.len());
                return Some(Token::Text(self.cut(end)));
            }
            let second = self.rest.as_bytes().get(1).copied().unwrap_or(b' ');
            if self.rest.starts_with("<!--") {
                let end = self.rest[4..].find("-->").map_or(self.rest.len(), |end| end + 7);
                self.cut(end);
            } else if matches!(second, b'!' | b'?') {
                let end = self.rest.find('>').map_or(self.rest.len(), |end| end + 1);
                self.cut(end);
            } else if second == b'/' {
                let end = self.rest.find('>').map_or(self.rest.len(), |end| end + 1);
                return Some(Token::Close(name(&self.cut(end)[2..])));
            } else if second.is_ascii_alphabetic() {
                let end = end_of_tag(self.rest);
                let tag = self.cut(end);
                let name = name(&tag[1..]);
                let attributes = tag[1 + name.len()..].trim_end_matches('>');
                self.raw = RAW.into_iter().find(|raw| raw.eq_ignore_ascii_case(name));
                if attributes.ends_with('/') && self.raw == Some("svg") {
                    self.raw = None;
                }
                return Some(Token::Open { name, attributes });
            } else {
                // A sign that stands for itself, up to the next one.
                let end = self.rest[1..].find('<').map_or(self.rest.len(), |end| end + 1);
                return Some(Token::Text(self.cut(end)));
            }
        }
    }
}

fn name(tag: &str) -> &str {
    &tag[..tag.find(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/')).unwrap_or(tag.len())]
}

/// Where a tag ends: at the first `>` outside quotes; at the end of the page where there is none.
fn end_of_tag(text: &str) -> usize {
    let mut quote = None;
    let mut before = b' ';
    for (index, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(mark), byte) if mark == byte => quote = None,
            // Quotes open only where a value begins: an apostrophe elsewhere would swallow the page.
            (None, b'"' | b'\'') if before == b'=' => quote = Some(byte),
            (None, b'>') => return index + 1,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    text.len()
}

fn end_of_raw(text: &str, name: &str) -> usize {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let start = from + at;
        let end = start + 2 + name.len();
        if bytes.get(start + 2..end).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes())) {
            return start;
        }
        from = start + 2;
    }
    text.len()
}

/// The value of an attribute; empty for one without a value.
pub(super) fn attribute<'a>(attributes: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '/')).unwrap_or(rest.len());
        if rest.is_empty() {
            return None;
        }
        // A stray `=` is a name of its own.
        let (name, after) = rest.split_at(end.max(1));
        let trimmed = after.trim_start();
        let mut value = "";
        rest = after;
        if let Some(written) = trimmed.strip_prefix('=') {
            let written = written.trim_start();
            (value, rest) = match written.chars().next() {
                Some(mark @ ('"' | '\'')) => written[1..].split_once(mark).unwrap_or((&written[1..], "")),
                _ => written.split_at(written.find(|c: char| c.is_ascii_whitespace()).unwrap_or(written.len())),
            };
        }
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
}

/// Text with its entities resolved; what is no entity stays as it is.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    /// The longest name of an entity is shorter.
    const LONGEST: usize = 40;
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.bytes().take(LONGEST).position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'#'));
        let end = end.unwrap_or(rest.len().min(LONGEST));
        let (Some(name), closed) = (rest.get(..end), rest.as_bytes().get(end) == Some(&b';')) else {
            result.push('&');
            continue;
        };
        let resolved: Option<Cow<'_, str>> = match name.strip_prefix('#') {
            Some(number) => code_point(number).map(|c| Cow::Owned(c.to_string())),
            None if closed => resolve_html5_entity(name).map(Cow::Borrowed),
            // Old pages leave the sign off these.
            None if matches!(name, "amp" | "lt" | "gt" | "quot" | "nbsp") => {
                resolve_html5_entity(name).map(Cow::Borrowed)
            }
            None => None,
        };
        match resolved {
            Some(text) => {
                result.push_str(&text);
                rest = &rest[end + usize::from(closed)..];
            }
            None => result.push('&'),
        }
    }
    result.push_str(rest);
    Cow::Owned(result)
}

/// A character by its number; one that is no character is replaced, as browsers do.
fn code_point(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    let code = code.ok()?;
    Some(char::from_u32(code).filter(|&c| c != '\0').unwrap_or('\u{fffd}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_however_they_are_written() {
        let tag = " a=1 B='two words' checked c = \"x>y\" = =z d/";
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("two words")),
            ("c", Some("x>y")),
            ("checked", Some("")),
            ("d", Some("")),
            ("e", None),
        ] {
            assert_eq!(attribute(tag, name), value, "{name}");
        }
        assert_eq!(attribute("ä=ö ü", "ä"), Some("ö"));
    }

    #[test]
    fn quotes_hide_the_end_of_a_tag_only_in_values() {
        let tokens: Vec<Token<'_>> = Tokens::new("<a t='>'>b</a x>don't<b'>c").collect();
        let open = |name, attributes| Token::Open { name, attributes };
        assert_eq!(
            tokens,
            [
                open("a", " t='>'"),
                Token::Text("b"),
                Token::Close("a"),
                Token::Text("don't"),
                open("b'", ""),
                Token::Text("c")
            ]
        );
    }
}
