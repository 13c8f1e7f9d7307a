//! JSON: lists of records as tables where they are flat and short, everything else as headings, paragraphs and lists.

use serde_json::{Map, Value};

use super::blocks::Blocks;
use super::encoding::Decoded;
use super::{ExtractError, Extracted, Limits};

/// A cell longer than this in characters makes sections of records in place of a table.
const LONG_CELL: usize = 200;

/// Most columns of a table.
const MOST_COLUMNS: usize = 16;

/// One JSON value.
pub(super) fn read(decoded: Decoded, limits: &Limits) -> Result<Extracted, ExtractError> {
    let Decoded { text, warnings } = decoded;
    let value = parse(&text, limits)?;
    let title = ["title", "name"].iter().find_map(|key| value.get(key)?.as_str()).map(str::to_owned);
    let mut blocks = Blocks::new(limits);
    any(&value, 1, &mut blocks)?;
    Ok(Extracted { text: blocks.finish(), title, pages: None, warnings })
}

/// One JSON value a line. Lines that are not JSON are left out with a warning; none that is, is an error.
pub(super) fn read_lines(decoded: Decoded, limits: &Limits) -> Result<Extracted, ExtractError> {
    let Decoded { text, mut warnings } = decoded;
    let mut values = Vec::new();
    let mut bad: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match parse(line, limits) {
            Ok(value) => values.push(value),
            Err(ExtractError::Damaged { reason, .. }) => bad.push((number + 1, reason)),
            Err(error) => return Err(error),
        }
    }
    if let Some((line, reason)) = bad.first() {
        if values.is_empty() {
            let reason = format!("no line is JSON (line {line}: {reason})");
            return Err(ExtractError::Damaged { form: "JSON lines file", reason });
        }
        warnings.push(format!("{} line(s) are not JSON and were left out, the first is line {line}", bad.len()));
    }
    let mut blocks = Blocks::new(limits);
    records(&values, 1, &mut blocks)?;
    Ok(Extracted { text: blocks.finish(), title: None, pages: None, warnings })
}

fn parse(text: &str, limits: &Limits) -> Result<Value, ExtractError> {
    if text.len() > limits.text_bytes {
        return Err(ExtractError::Limit { what: "its text in bytes", limit: limits.text_bytes as u64 });
    }
    // serde_json refuses nesting of more than 128 by itself.
    serde_json::from_str(text).map_err(|error| ExtractError::Damaged { form: "JSON", reason: error.to_string() })
}

fn any(value: &Value, level: usize, blocks: &mut Blocks) -> Result<(), ExtractError> {
    match value {
        Value::Null => Ok(()),
        Value::Array(values) => records(values, level, blocks),
        Value::Object(fields) => object(fields, level, blocks),
        scalar => blocks.paragraph(&plain(scalar)),
    }
}

/// Short values as a list, long ones and nested ones below headings.
fn object(fields: &Map<String, Value>, level: usize, blocks: &mut Blocks) -> Result<(), ExtractError> {
    let short = |value: &&Value| is_scalar(value) && plain(value).chars().count() <= LONG_CELL;
    let list: String = fields
        .iter()
        .filter(|(_, value)| !value.is_null() && short(value))
        .map(|(key, value)| format!("- {key}: {}\n", words(&plain(value))))
        .collect();
    blocks.raw(&list)?;
    for (key, value) in fields.iter().filter(|(_, value)| !short(value)) {
        blocks.heading(level, key)?;
        any(value, level + 1, blocks)?;
    }
    Ok(())
}

/// Flat records with short values are a table; others are sections, named by what they call themselves.
fn records(values: &[Value], level: usize, blocks: &mut Blocks) -> Result<(), ExtractError> {
    if values.iter().all(is_scalar) {
        let list: String = values.iter().map(|value| format!("- {}\n", words(&plain(value)))).collect();
        return if values.len() == 1 { any(&values[0], level, blocks) } else { blocks.raw(&list) };
    }
    if let Some(rows) = table(values) {
        return blocks.table(&rows);
    }
    for (number, value) in values.iter().enumerate() {
        let named = ["title", "name", "id"].iter().find_map(|key| value.get(key).filter(|value| is_scalar(value)));
        let heading = named.map_or_else(|| format!("Record {}", number + 1), plain);
        blocks.heading(level, &heading)?;
        any(value, level + 1, blocks)?;
    }
    Ok(())
}

/// Rows of a table: the keys of the first record, which every record must have no others than.
fn table(values: &[Value]) -> Option<Vec<Vec<String>>> {
    let header: Vec<&String> = values.first()?.as_object()?.keys().collect();
    if values.len() < 2 || header.is_empty() || header.len() > MOST_COLUMNS {
        return None;
    }
    let mut rows = vec![header.iter().map(|key| (*key).clone()).collect()];
    for value in values {
        let fields = value.as_object()?;
        if fields.len() > header.len() || fields.keys().any(|key| !header.contains(&key)) {
            return None;
        }
        let mut row = Vec::with_capacity(header.len());
        for key in &header {
            let cell = fields.get(*key).map_or(Some(String::new()), |value| is_scalar(value).then(|| plain(value)))?;
            if cell.chars().count() > LONG_CELL || cell.contains('\n') {
                return None;
            }
            row.push(cell);
        }
        rows.push(row);
    }
    Some(rows)
}

fn is_scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Decoded {
        Decoded { text: text.to_owned(), ..Decoded::default() }
    }

    #[test]
    fn flat_records_are_a_table_and_long_ones_are_sections() {
        let limits = Limits::default();
        let flat =
            read_lines(decoded("{\"a\": 1, \"b\": \"x\"}\nnot\n{\"a\": null, \"b\": \"y\"}\n"), &limits).unwrap();
        assert_eq!(flat.text, "| a | b |\n| --- | --- |\n| 1 | x |\n| | y |");
        assert_eq!(flat.warnings, ["1 line(s) are not JSON and were left out, the first is line 2"]);
        let long = "word ".repeat(60);
        let text = format!(
            "{{\"title\": \"Pond\", \"parts\": [{{\"id\": 1, \"text\": \"{long}\"}}, {{\"id\": 2, \"tags\": [\"a\", \"b\"]}}]}}"
        );
        let found = read(decoded(&text), &limits).unwrap();
        assert_eq!(found.title.as_deref(), Some("Pond"));
        let body = long.trim();
        assert_eq!(
            found.text,
            format!(
                "- title: Pond\n\n# parts\n\n## 1\n\n- id: 1\n\n### text\n\n{body}\n\n## 2\n\n- id: 2\n\n### tags\n\n- a\n- b"
            )
        );
    }

    #[test]
    fn what_is_not_json_and_what_is_too_deep_is_refused() {
        let limits = Limits::default();
        assert!(matches!(read(decoded("{\"a\": "), &limits), Err(ExtractError::Damaged { .. })));
        let deep = "[".repeat(100_000);
        assert!(read(decoded(&deep), &limits).unwrap_err().to_string().contains("recursion limit exceeded"));
        assert!(read_lines(decoded("a\nb\n"), &limits).unwrap_err().to_string().contains("no line is JSON (line 1: "));
    }
}
