//! Rows of JSON, JSON lines and CSV.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::EvalError;

/// The rows of a JSON text: one object a line, a list of objects, or an object that holds the list under `field`.
pub(crate) fn json_rows(path: &Path, text: &str, field: Option<&str>) -> Result<Vec<Value>, EvalError> {
    let refuse = |line: usize, problem: String| EvalError::Line { path: path.to_owned(), line, problem };
    let text = text.trim_start_matches('\u{feff}');
    if let Some(field) = field {
        let whole: Value = serde_json::from_str(text).map_err(|error| refuse(error.line(), error.to_string()))?;
        let rows = whole.get(field).and_then(Value::as_array);
        return rows.cloned().ok_or_else(|| refuse(1, format!("there is no list under {field:?}; check `field`")));
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| refuse(error.line(), format!("{error}; expected a list of objects")));
    }
    // BIG-Bench Hard as it was published: one object, whose list of examples stands beside a note.
    if let Ok(Value::Object(whole)) = serde_json::from_str::<Value>(text)
        && let Some(Value::Array(rows)) = whole.get("examples")
    {
        return Ok(rows.clone());
    }
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(line).map_err(|error| {
            refuse(index + 1, format!("this is not JSON ({error}); expected one object a line, or one list of objects"))
        })?;
        if !row.is_object() {
            return Err(refuse(index + 1, "expected an object of columns and values".to_owned()));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// `HellaSwag` as plain text, six lines an item: `activity: context`, the number of the right ending from 0, four endings. A last sentence
/// of the context that does not end is the one that the endings go on with (`ctx_b` of the origin).
pub(crate) fn hellaswag_rows(path: &Path, text: &str) -> Result<Vec<Value>, EvalError> {
    let refuse = |line: usize, problem: String| EvalError::Line { path: path.to_owned(), line, problem };
    let lines: Vec<&str> = text.lines().collect();
    let items = lines.chunks(6).enumerate().map(|(index, item)| {
        let first = 6 * index + 1;
        let &[context, label, ref endings @ ..] = item else {
            return Err(refuse(first, "the last item has no right ending and no endings".to_owned()));
        };
        let (activity, context) = context.split_once(": ").ok_or_else(|| {
            refuse(
                first,
                format!(
                    "{context:?} is no `activity: context`; an item has six lines, the first one names its activity"
                ),
            )
        })?;
        if endings.len() != 4 {
            return Err(refuse(first, format!("the last item has {} endings, expected 4", endings.len())));
        }
        if !matches!(label, "0" | "1" | "2" | "3") {
            return Err(refuse(first + 1, format!("{label:?} is no number of an ending, 0 to 3")));
        }
        let ended = context.ends_with(['.', '!', '?']);
        let last_end = || context.rmatch_indices(' ').find(|(at, _)| context[..*at].ends_with(['.', '!', '?']));
        let (whole, begun) = match (ended, last_end()) {
            (true, _) => (context, ""),
            (false, Some((at, _))) => (&context[..at], &context[at + 1..]),
            (false, None) => ("", context),
        };
        Ok(json!({"activity_label": activity, "ctx_a": whole, "ctx_b": begun, "endings": endings, "label": label}))
    });
    items.collect()
}

/// What pandas, which lm-eval's data sets are read with, takes for absent.
const ABSENT: &[&str] = &[
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// The rows of a CSV text with a header. As pandas does, a column of numbers alone becomes numbers, one of `True` and `False` truth
/// values, and `NA` and the like are absent.
pub(crate) fn csv_rows(path: &Path, text: &str, delimiter: Option<&str>) -> Result<Vec<Value>, EvalError> {
    let tabs = path.extension().is_some_and(|ending| ending == "tsv");
    let delimiter = delimiter.and_then(|text| text.chars().next()).unwrap_or(if tabs { '\t' } else { ',' });
    let mut records = records(text.trim_start_matches('\u{feff}'), delimiter).into_iter();
    let Some((_, header)) = records.next() else { return Ok(Vec::new()) };
    let records: Vec<(usize, Vec<String>)> = records.collect();
    if let Some((line, fields)) = records.iter().find(|(_, fields)| fields.len() != header.len()) {
        let problem =
            format!("{} fields, but the header has {}; quote fields that hold commas", fields.len(), header.len());
        return Err(EvalError::Line { path: path.to_owned(), line: *line, problem });
    }
    let kinds: Vec<Kind> =
        (0..header.len()).map(|column| Kind::of(records.iter().map(|(_, fields)| fields[column].as_str()))).collect();
    let row = |fields: Vec<String>| {
        let values = fields.iter().zip(&kinds).map(|(field, kind)| kind.value(field));
        Value::Object(header.iter().cloned().zip(values).collect::<Map<_, _>>())
    };
    Ok(records.into_iter().map(|(_, fields)| row(fields)).collect())
}

/// What all fields of a column are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Integer,
    Float,
    Bool,
    Text,
}

impl Kind {
    fn of<'f>(fields: impl Iterator<Item = &'f str> + Clone) -> Self {
        let known = || fields.clone().filter(|field| !ABSENT.contains(field));
        let some_absent = fields.clone().any(|field| ABSENT.contains(&field));
        if known().next().is_none() {
            return Self::Text;
        }
        if known().all(|field| field.trim().parse::<i64>().is_ok()) {
            // pandas has no absent whole number.
            return if some_absent { Self::Float } else { Self::Integer };
        }
        if known().all(|field| field.trim().parse::<f64>().is_ok_and(f64::is_finite)) {
            return Self::Float;
        }
        let truth = ["True", "False", "TRUE", "FALSE", "true", "false"];
        if !some_absent && known().all(|field| truth.contains(&field)) { Self::Bool } else { Self::Text }
    }

    fn value(self, field: &str) -> Value {
        if ABSENT.contains(&field) {
            return Value::Null;
        }
        match self {
            Self::Integer => field.trim().parse::<i64>().map_or(Value::Null, Value::from),
            Self::Float => field.trim().parse::<f64>().map_or(Value::Null, Value::from),
            Self::Bool => field.eq_ignore_ascii_case("true").into(),
            Self::Text => field.into(),
        }
    }
}

/// Records of a CSV text (RFC 4180: quoted fields may hold delimiters, line ends and doubled quotes), each with its first line from 1.
fn records(text: &str, delimiter: char) -> Vec<(usize, Vec<String>)> {
    let mut records = Vec::new();
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let (mut line, mut first_line) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        line += usize::from(character == '\n');
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            _ if character == delimiter && !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                if !(fields.is_empty() && field.is_empty()) {
                    fields.push(std::mem::take(&mut field));
                    records.push((first_line, std::mem::take(&mut fields)));
                }
                first_line = line;
            }
            _ => field.push(character),
        }
    }
    if !(fields.is_empty() && field.is_empty()) {
        fields.push(field);
        records.push((first_line, fields));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_as_pandas_reads_it() {
        let text = "q,n,f,b,t\r\n\"A \"\"b\"\", c\nd\",1,2.50,True,NA\nx,-2,,False,007x\n";
        let rows = csv_rows(Path::new("a.csv"), text, None).unwrap();
        assert_eq!(rows[0], json!({"q": "A \"b\", c\nd", "n": 1, "f": 2.5, "b": true, "t": null}));
        assert_eq!(rows[1], json!({"q": "x", "n": -2, "f": null, "b": false, "t": "007x"}));
        let error = csv_rows(Path::new("a.csv"), "a,b\n1\n", None).unwrap_err().to_string();
        assert!(error.contains("a.csv:2: 1 fields, but the header has 2"), "{error}");
        assert_eq!(csv_rows(Path::new("a.tsv"), "a\tb\nx,y\tz", None).unwrap(), [json!({"a": "x,y", "b": "z"})]);
    }

    #[test]
    fn json_in_its_forms() {
        let path = Path::new("a.json");
        assert_eq!(json_rows(path, "{\"a\": 1}\n\n{\"a\": 2}\n", None).unwrap().len(), 2);
        let published = "{\n\"canary\": \"x\",\n\"examples\": [{\"a\": 1}, {\"a\": 2}]\n}";
        assert_eq!(json_rows(path, published, None).unwrap().len(), 2);
        assert_eq!(json_rows(path, " [{\"a\": 1}]", None).unwrap().len(), 1);
        assert_eq!(json_rows(path, "{\"data\": [{\"a\": 1}]}", Some("data")).unwrap().len(), 1);
        assert!(
            json_rows(path, "{\"a\": 1}\n{\"a\"", None).unwrap_err().to_string().contains("a.json:2: this is not JSON")
        );
        assert!(json_rows(path, "3", None).unwrap_err().to_string().contains("an object"));
    }

    #[test]
    fn hellaswag_of_six_lines() {
        let path = Path::new("hellaswag_val.txt");
        let endings = "a.\nb.\nc.\nd.\n";
        let text = format!(
            "Roofs: A man sits. Is he up? he\n3\n{endings}Work World: How to draw. Learn it.\n0\n{endings}Kneeling: a man\n1\n{endings}"
        );
        let rows = hellaswag_rows(path, &text).unwrap();
        let told: Vec<_> = rows.iter().map(|row| (&row["ctx_a"], &row["ctx_b"], &row["label"])).collect();
        assert_eq!(
            json!(told),
            json!([["A man sits. Is he up?", "he", "3"], ["How to draw. Learn it.", "", "0"], ["", "a man", "1"]])
        );
        assert_eq!(
            (&rows[1]["activity_label"], &rows[1]["endings"]),
            (&json!("Work World"), &json!(["a.", "b.", "c.", "d."]))
        );
        for (text, problem) in [
            ("A: b\n4\na\nb\nc\nd\n", "hellaswag_val.txt:2: \"4\" is no number of an ending"),
            ("A: b\n1\na\nb\nc\n", "hellaswag_val.txt:1: the last item has 3 endings"),
            ("A: b\n", "hellaswag_val.txt:1: the last item has no right ending"),
            ("A b\n1\na\nb\nc\nd\n", "hellaswag_val.txt:1: \"A b\" is no `activity: context`"),
        ] {
            let error = hellaswag_rows(path, text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
