//! Values as Python writes and reads them: lm-eval's templates, hashes and files are made of Python's own texts.

use serde_json::{Map, Value};

/// `str(value)`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(value)`.
pub(crate) fn repr(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(repr).collect())),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), repr(value)));
            format!("{{{}}}", joined(entries.collect()))
        }
    }
}

fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => float(value),
        _ => number.to_string(),
    }
}

/// `repr` of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16 on.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value.abs() > 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut result = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            _ if character == quote => result.extend(['\\', quote]),
            _ if is_printable(character) => result.push(character),
            _ => match u32::from(character) {
                code @ 0..=0xff => result.push_str(&format!("\\x{code:02x}")),
                code @ 0x100..=0xffff => result.push_str(&format!("\\u{code:04x}")),
                code => result.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    result.push(quote);
    result
}

/// Whether `repr` shows a character: not control and format characters, nor spaces other than the common one.
fn is_printable(character: char) -> bool {
    let format = matches!(
        u32::from(character),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x2064
            | 0x2066..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe0001 | 0xe0020..=0xe007f
    );
    character == ' ' || !(character.is_control() || character.is_whitespace() || format)
}

/// `json.dumps(value, indent=2, ensure_ascii=False)`.
pub(crate) fn json(value: &Value) -> String {
    let mut result = String::new();
    write_json(value, 0, &mut result);
    result
}

fn write_json(value: &Value, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', 2 * depth));
    };
    match value {
        Value::Number(number) => out.push_str(&match number_text(number).as_str() {
            "nan" => "NaN".to_owned(),
            other => other.to_owned(),
        }),
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                line(depth + 1, out);
                write_json(item, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::Object(entries) if !entries.is_empty() => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                line(depth + 1, out);
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(": ");
                write_json(value, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// `ast.literal_eval(text)`: texts, numbers, `True`, `False`, `None`, and lists, tuples, sets and dictionaries of them. Tuples and
/// sets come as lists.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut reader = Literal { rest: text.trim() };
    let value = reader.value()?;
    reader.skip();
    reader.rest.is_empty().then_some(value)
}

struct Literal<'t> {
    rest: &'t str,
}

impl Literal<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, prefix: &str) -> bool {
        self.skip();
        let Some(rest) = self.rest.strip_prefix(prefix) else { return false };
        self.rest = rest;
        true
    }

    fn value(&mut self) -> Option<Value> {
        self.skip();
        match self.rest.chars().next()? {
            '[' => self.list('[', ']'),
            '(' => self.list('(', ')'),
            '{' => self.braces(),
            '\'' | '"' | 'r' | 'u' => {
                let mut text = self.string()?;
                // Texts side by side are one.
                loop {
                    self.skip();
                    if !self.rest.starts_with(['\'', '"']) {
                        break;
                    }
                    text.push_str(&self.string()?);
                }
                Some(Value::String(text))
            }
            _ => self.word(),
        }
    }

    fn list(&mut self, open: char, close: char) -> Option<Value> {
        self.rest = self.rest.strip_prefix(open)?;
        let close = close.to_string();
        let (mut items, mut commas) = (Vec::new(), 0);
        while !self.take(&close) {
            items.push(self.value()?);
            if self.take(",") {
                commas += 1;
            } else if !self.take(&close) {
                return None;
            } else {
                break;
            }
        }
        // Parentheses without a comma only group.
        if open == '(' && commas == 0 && items.len() == 1 { items.pop() } else { Some(Value::Array(items)) }
    }

    fn braces(&mut self) -> Option<Value> {
        self.rest = self.rest.strip_prefix('{')?;
        let (mut entries, mut items) = (Map::new(), Vec::new());
        while !self.take("}") {
            let value = self.value()?;
            if self.take(":") {
                entries.insert(text(&value), self.value()?);
            } else {
                items.push(value);
            }
            if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
        match (entries.is_empty(), items.is_empty()) {
            (_, true) => Some(Value::Object(entries)),
            (true, false) => Some(Value::Array(items)),
            (false, false) => None,
        }
    }

    fn string(&mut self) -> Option<String> {
        let raw = self.take("r");
        let _ = self.take("u");
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| self.rest.starts_with(quote))?;
        let mut rest = &self.rest[quote.len()..];
        let mut result = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(quote) {
                self.rest = after;
                return Some(result);
            }
            let mut characters = rest.chars();
            let character = characters.next()?;
            if character == '\n' && quote.len() == 1 {
                return None;
            }
            if character != '\\' || raw {
                result.push(character);
                rest = characters.as_str();
                continue;
            }
            let escaped = characters.next()?;
            rest = characters.as_str();
            let code = |rest: &mut &str, digits: usize| -> Option<char> {
                let found = rest.get(..digits)?;
                *rest = &rest[digits..];
                char::from_u32(u32::from_str_radix(found, 16).ok()?)
            };
            match escaped {
                '\n' => {}
                'n' => result.push('\n'),
                't' => result.push('\t'),
                'r' => result.push('\r'),
                'a' => result.push('\u{7}'),
                'b' => result.push('\u{8}'),
                'f' => result.push('\u{c}'),
                'v' => result.push('\u{b}'),
                '0' => result.push('\0'),
                '\\' | '\'' | '"' => result.push(escaped),
                'x' => result.push(code(&mut rest, 2)?),
                'u' => result.push(code(&mut rest, 4)?),
                'U' => result.push(code(&mut rest, 8)?),
                other => result.extend(['\\', other]),
            }
        }
    }

    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "+-._".contains(c))).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        let value = match word {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" => Value::Null,
            _ if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
                let plain = word.replace('_', "");
                match plain.strip_prefix('+').unwrap_or(&plain).parse::<i64>() {
                    // A number with leading zeros is no number of Python's.
                    Ok(number) => {
                        let digits = word.trim_start_matches(['+', '-']);
                        (digits == "0" || !digits.starts_with('0')).then(|| Value::from(number))?
                    }
                    Err(_) => serde_json::Number::from_f64(plain.parse().ok()?).map(Value::Number)?,
                }
            }
            _ => return None,
        };
        self.rest = &self.rest[end..];
        Some(value)
    }
}

/// `text.isdigit()` with at least one character.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_as_python_writes_them() {
        let value = json!({"a": [1, 2.0, 1e-5, 1e16, true, null], "it's": "x\n\u{a0}é"});
        assert_eq!(text(&value), "{'a': [1, 2.0, 1e-05, 1e+16, True, None], \"it's\": 'x\\n\\xa0é'}");
        assert_eq!(text(&json!("plain")), "plain");
        assert_eq!(repr(&json!("both ' and \"")), "'both \\' and \"'");
        assert_eq!((float(0.1), float(123456.0), float(-0.0)), ("0.1".into(), "123456.0".into(), "-0.0".into()));
    }

    #[test]
    fn literals_come_back() {
        for value in [
            json!(["a", "it's", "x\n\u{a0}\u{200b}é\\", "\"'"]),
            json!({"k": [1, -2, 2.5, true, false, null], "e": [], "f": {}}),
            json!("text"),
        ] {
            assert_eq!(literal(&repr(&value)), Some(value));
        }
        assert_eq!(literal("(1, 'a',)"), Some(json!([1, "a"])));
        assert_eq!(literal("('a' \"b\")"), Some(json!("ab")));
        assert_eq!(literal("{1, 2}"), Some(json!([1, 2])));
        assert_eq!((literal("[1, 2"), literal("os.system"), literal("007"), literal("1 2")), (None, None, None, None));
    }

    #[test]
    fn json_as_python_dumps_it() {
        // json.dumps({"q": "é", "c": ["a", 1e-5], "e": [], "o": {}}, indent=2, ensure_ascii=False)
        let value = json!({"q": "é", "c": ["a", 1e-5], "e": [], "o": {}});
        assert_eq!(
            json(&value),
            "{\n  \"q\": \"é\",\n  \"c\": [\n    \"a\",\n    1e-05\n  ],\n  \"e\": [],\n  \"o\": {}\n}"
        );
    }
}
