//! Documents in one shape: every one has every key, and benchmarks in other people's columns get those of their origin.

use serde_json::{Map, Value, json};

use super::config::TaskConfig;
use super::python;

/// The shape of the values of a column.
#[derive(Debug, Default)]
enum Shape {
    /// Nothing but `null` so far.
    #[default]
    Unknown,
    Scalar,
    /// A number, and whether any was not whole.
    Number {
        float: bool,
    },
    List(Box<Shape>),
    Structure(Vec<(String, Shape)>),
}

impl Shape {
    fn take(&mut self, value: &Value) {
        match (&mut *self, value) {
            (_, Value::Null) => {}
            (Self::Unknown, _) => {
                *self = match value {
                    Value::Number(_) => Self::Number { float: false },
                    Value::Array(_) => Self::List(Box::default()),
                    Value::Object(_) => Self::Structure(Vec::new()),
                    _ => Self::Scalar,
                };
                self.take(value);
            }
            (Self::Number { float }, Value::Number(number)) => *float |= number.is_f64(),
            (Self::List(inner), Value::Array(items)) => items.iter().for_each(|item| inner.take(item)),
            (Self::Structure(fields), Value::Object(entries)) => {
                for (key, value) in entries {
                    let place = fields.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
                        fields.push((key.clone(), Self::Unknown));
                        fields.len() - 1
                    });
                    fields[place].1.take(value);
                }
            }
            // Values of several kinds in one column stay as they are.
            _ => *self = Self::Scalar,
        }
    }

    fn fit(&self, value: Value) -> Value {
        match (self, value) {
            (Self::Number { float: true }, Value::Number(number)) => json!(number.as_f64()),
            (Self::List(inner), Value::Array(items)) => items.into_iter().map(|item| inner.fit(item)).collect(),
            (Self::Structure(fields), Value::Object(mut entries)) => Value::Object(
                fields
                    .iter()
                    .map(|(key, shape)| (key.clone(), shape.fit(entries.remove(key).unwrap_or(Value::Null))))
                    .collect(),
            ),
            (_, value) => value,
        }
    }
}

/// The rows as a table holds them, which lm-eval reads them from: keys in the order of their first appearance, what a row lacks is
/// `null`, whole numbers in a column of others are floats. Hashes of documents depend on it.
pub(crate) fn plain(rows: Vec<Value>) -> Vec<Value> {
    let mut shape = Shape::default();
    for row in &rows {
        shape.take(row);
    }
    rows.into_iter().map(|row| shape.fit(row)).collect()
}

/// A row of a public benchmark in another form than its origin's (`query`, `choices`, `gold` of llm-foundry; a CSV of MMLU) with the
/// columns that the tasks of lm-eval read; any other row as it is.
pub(crate) fn restored(row: Value, config: &TaskConfig) -> Value {
    let data = &config.data;
    let made = match (data.last(), data.name.as_deref()) {
        ("mmlu", subject) => mmlu(&row, subject.unwrap_or_default()),
        ("ai2_arc", _) => choice_row(&row).map(|(query, choices, gold)| {
            let question = query.trim_start_matches("Question: ").trim_end_matches('\n').trim_end_matches("\nAnswer:");
            json!({"question": question, "choices": lettered(&choices), "answerKey": letter(gold)})
        }),
        ("openbookqa", _) => choice_row(&row).map(|(query, choices, gold)| {
            json!({"question_stem": query, "choices": lettered(&choices), "answerKey": letter(gold)})
        }),
        ("piqa", _) => choice_row(&row).and_then(|(query, choices, gold)| {
            let [first, second] = <[String; 2]>::try_from(choices).ok()?;
            let goal = query.strip_prefix("Question: ").unwrap_or(&query).trim_end_matches('\n');
            Some(json!({"goal": goal, "sol1": first, "sol2": second, "label": gold}))
        }),
        ("commonsense_qa", _) => choice_row(&row).and_then(|(query, letters, gold)| commonsense(&query, &letters, gold)),
        ("super_glue", Some("copa")) => choice_row(&row).and_then(|(query, choices, gold)| copa(&query, choices, gold)),
        _ => None,
    };
    made.unwrap_or(row)
}

fn choice_row(row: &Value) -> Option<(String, Vec<String>, usize)> {
    let choices = row
        .get("choices")?
        .as_array()?
        .iter()
        .map(|choice| choice.as_str().map(str::to_owned))
        .collect::<Option<_>>()?;
    let gold = usize::try_from(row.get("gold")?.as_u64()?).ok()?;
    Some((row.get("query")?.as_str()?.to_owned(), choices, gold))
}

fn letter(place: usize) -> String {
    char::from_u32('A' as u32 + place as u32).unwrap_or('?').to_string()
}

fn lettered(choices: &[String]) -> Value {
    json!({"text": choices, "label": (0..choices.len()).map(letter).collect::<Vec<_>>()})
}

fn mmlu(row: &Value, subject: &str) -> Option<Value> {
    let choices: Vec<String> =
        (0..4).map(|place| row.get(format!("choice{place}")).map(python::text)).collect::<Option<_>>()?;
    Some(
        json!({"question": python::text(row.get("question")?), "subject": subject, "choices": choices, "answer": row.get("answer")?}),
    )
}

/// `Question: Q\nChoices:\nA. a\nB. b\nAnswer:`, whose choices are the letters.
fn commonsense(query: &str, letters: &[String], gold: usize) -> Option<Value> {
    let (question, listed) = query.strip_prefix("Question: ")?.split_once("\nChoices:\n")?;
    let listed: Vec<&str> = listed.strip_suffix("\nAnswer:")?.lines().collect();
    let text = |(line, letter): (&&str, &String)| Some(line.strip_prefix(letter)?.strip_prefix(". ")?.to_owned());
    let choices: Vec<String> = listed.iter().zip(letters).map(text).collect::<Option<_>>()?;
    let complete = listed.len() == letters.len();
    complete.then(|| json!({"question": question, "choices": {"label": letters, "text": choices}, "answerKey": letters.get(gold)}))
}

/// `The man fell, because` is the premise `The man fell,.` asked for its cause.
fn copa(query: &str, choices: Vec<String>, gold: usize) -> Option<Value> {
    let (premise, question) = match query.trim_end().rsplit_once(' ')? {
        (premise, "because") => (premise, "cause"),
        (premise, "therefore") => (premise, "effect"),
        _ => return None,
    };
    let [first, second] = <[String; 2]>::try_from(choices).ok()?;
    Some(Value::Object(Map::from_iter([
        ("premise".to_owned(), format!("{premise}.").into()),
        ("choice1".to_owned(), first.into()),
        ("choice2".to_owned(), second.into()),
        ("question".to_owned(), question.into()),
        ("label".to_owned(), gold.into()),
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_every_key() {
        let rows = vec![json!({"a": 1, "k": [{"x": 1}, {"y": "t"}]}), json!({"b": null, "a": 2.5, "k": []})];
        let rows = plain(rows);
        assert_eq!(rows[0].to_string(), r#"{"a":1.0,"k":[{"x":1,"y":null},{"x":null,"y":"t"}],"b":null}"#);
        assert_eq!(rows[1].to_string(), r#"{"a":2.5,"k":[],"b":null}"#);
    }

    #[test]
    fn commonsense_as_it_was() {
        let letters = ["A".to_owned(), "B".to_owned()];
        let row = commonsense("Question: Where?\nChoices:\nA. a bank\nB. b. c\nAnswer:", &letters, 1).unwrap();
        let choices = json!({"label": letters, "text": ["a bank", "b. c"]});
        assert_eq!(row, json!({"question": "Where?", "choices": choices, "answerKey": "B"}));
        assert_eq!(commonsense("Question: Where?\nChoices:\nA. a bank\nAnswer:", &letters, 1), None);
        assert_eq!(commonsense("Where?", &letters, 1), None);
    }

    #[test]
    fn copa_as_it_was() {
        let row = copa("The man fell, because", vec!["a".into(), "b".into()], 1).unwrap();
        assert_eq!(
            (&row["premise"], &row["question"], &row["label"]),
            (&json!("The man fell,."), &json!("cause"), &json!(1))
        );
        assert_eq!(copa("The man fell", vec!["a".into(), "b".into()], 1), None);
    }
}
