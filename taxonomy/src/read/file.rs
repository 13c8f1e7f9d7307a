//! The text of a leaf's file and the keys in it.

use std::fs;
use std::path::Path;

use super::fields::Fields;
use super::{Mode, Report, START};
use crate::layout;
use crate::leaf::Place;
use crate::node::{Dialect, Value};
use crate::parse::{self, SyntaxError, YamlFile};

/// A leaf's file larger than this is a mistake, not a leaf.
const MAX_BYTES: u64 = 16 << 20;

/// The text of a file with `\n` as line end and without a byte order mark.
pub(super) fn text(file: &Path, report: &mut Report<'_>) -> Option<String> {
    let bytes = fs::metadata(file).and_then(|metadata| {
        if metadata.len() > MAX_BYTES {
            return Err(std::io::Error::other(format!("it has {} bytes, more than {MAX_BYTES}", metadata.len())));
        }
        fs::read(file)
    });
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            report.error(START, format!("cannot read the file: {error}"), "check that it is there and readable");
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(normal(&text)),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|&byte| byte == b'\n').count();
            let column = 1 + valid.iter().rev().take_while(|&&byte| byte != b'\n').count();
            report.error(Place { line, column }, "the file is not UTF-8 here", "save it in the encoding UTF-8");
            None
        }
    }
}

/// A text with `\n` as line end and without a byte order mark.
pub(crate) fn normal(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// The keys of a leaf; `None` after an error, and for an empty file (a warning).
pub(super) fn fields(text: &str, mode: Mode, report: &mut Report<'_>) -> Option<Fields> {
    let mut file =
        parse::parse_file(text, Dialect::Yaml12).map_err(|error| refuse_syntax(&error, text, report)).ok()?;
    let own =
        matches!(&file.root.value, Value::Mapping(entries) if entries.iter().any(|(key, _)| key.name == "espalier"));
    if !own {
        let dialect = if mode == Mode::Strict { Dialect::Yaml11 } else { Dialect::Lenient };
        file = parse::parse_file(text, dialect).map_err(|error| refuse_syntax(&error, text, report)).ok()?;
    }
    let YamlFile { root, repeated, tagged } = file;
    if mode == Mode::Strict && !own {
        for layout::Flaw { place, message, .. } in layout::unreadable(text) {
            report.error(place, message, "remove it, or put the text in quotes");
        }
    }
    if is_nothing(&root.value) {
        report.warning(START, "the file is empty and is skipped", "write a leaf into it, or delete it");
        return None;
    }
    for (place, _) in tagged {
        report.error(place, "a value has a tag (`!...`) that is not of YAML's own types", "remove it");
    }
    let Value::Mapping(entries) = root.value else {
        report.error(
            root.place,
            format!("a leaf is a mapping of keys to values, this is {}", root.value.kind()),
            "begin with `espalier: 1` and `created_by: YOUR_NAME`",
        );
        return None;
    };
    let fields = Fields::new(entries, root.place, "a leaf");
    // Only version 1 is not linted, and there the last value counts without a word.
    let first_version = !own && fields.get("version").is_none_or(|node| node.value == Value::Integer(1));
    for key in repeated {
        let message = format!("the key `{}` stands twice in its mapping", key.name);
        let hint = "a key may stand once in a mapping: remove or rename the second one";
        if first_version {
            report.warning(key.place, format!("{message}; the last one counts"), hint);
        } else {
            report.error(key.place, message, hint);
        }
    }
    Some(fields)
}

fn refuse_syntax(error: &SyntaxError, text: &str, report: &mut Report<'_>) {
    let hint = syntax_hint(&error.message, text.lines().nth(error.place.line.saturating_sub(1)));
    report.error(error.place, format!("this is not YAML: {}", error.message), hint);
}

/// What `PyYAML`'s users call empty: nothing, and a list, mapping, text or number of nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Integer(0) => true,
        Value::Float(number) => *number == 0.0,
        Value::Text(text) => text.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
        Value::Bool(true) | Value::Integer(_) | Value::Date(_) => false,
    }
}

/// What most often causes a YAML error with such words, on such a line.
fn syntax_hint(message: &str, line: Option<&str>) -> String {
    let message = message.to_lowercase();
    if line.is_some_and(|line| line.starts_with('\t') || line.trim_start_matches(' ').starts_with('\t')) {
        return "indent with spaces: YAML allows no tabs there".to_owned();
    }
    if message.contains("alias") || message.contains("anchor") || message.contains("budget") {
        return "write the value out in place of `*name`, or put the text in quotes".to_owned();
    }
    if line.is_some_and(|line| line.matches(": ").count() > 1 && !line.contains('"') && !line.contains('\'')) {
        return "a text with `: ` in it must stand in quotes".to_owned();
    }
    "look at the indentation here and in the line above, and put texts with `:`, `#`, `[` or `{` in quotes".to_owned()
}
