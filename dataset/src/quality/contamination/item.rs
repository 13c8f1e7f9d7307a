//! Items of benchmarks, in the forms in which they are given away.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::DatasetError;

/// An item of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Name of the benchmark: of its file, without the ending.
    pub benchmark: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// What is asked, without the text that it is about.
    pub question: String,
    /// The answers to choose from; empty where there are none.
    pub choices: Vec<String>,
    /// The right answer as a text; empty where the item says none.
    pub answer: String,
}

/// Names under which benchmarks keep their question.
const QUESTIONS: [&str; 11] =
    ["question", "query", "problem", "ctx", "goal", "sentence", "prompt", "instruction", "input", "premise", "text"];
/// Names under which they keep choices in one list.
const CHOICES: [&str; 4] = ["choices", "endings", "options", "answers"];
/// Names of choices that stand alone.
const SINGLE_CHOICES: [&str; 10] = ["sol1", "sol2", "option1", "option2", "choice1", "choice2", "A", "B", "C", "D"];
/// Names of the right answer.
const ANSWERS: [&str; 9] =
    ["answer", "answerKey", "label", "gold", "target", "correct_answer", "solution", "best_answer", "output"];

/// Reads items, one JSON object a line: `question`, `choices` and `answer` as MMLU has them, the names of other benchmarks, or the
/// samples that lm-evaluation-harness writes, whose item is under `doc`.
///
/// # Errors
/// A file that cannot be read; a line that is not an item, with its number.
pub fn read_items(path: &Path) -> Result<Vec<Item>, DatasetError> {
    let file = File::open(path).map_err(DatasetError::file("read", path))?;
    let benchmark = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut items = Vec::new();
    for (place, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(DatasetError::file("read", path))?;
        let text = line.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        let wrong = |reason: String| DatasetError::Line { path: path.to_path_buf(), line: place + 1, reason };
        let value: Value = serde_json::from_str(text)
            .map_err(|error| wrong(format!("this is not JSON: {error} (a benchmark is one JSON object a line)")))?;
        let Value::Object(object) = value else {
            return Err(wrong("an item of a benchmark is a JSON object, as {\"question\": \"...\"}".to_owned()));
        };
        let mut item = Item::from_object(&object).map_err(wrong)?;
        item.line = place + 1;
        item.benchmark.clone_from(&benchmark);
        items.push(item);
    }
    if items.is_empty() {
        return Err(DatasetError::whole(path, "no item is in this file"));
    }
    Ok(items)
}

impl Item {
    /// The item that a JSON object holds, by the names that benchmarks give to their parts; without name and line.
    ///
    /// # Errors
    /// Where no part is named as a question is; the message says which names there are.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, String> {
        let object = object.get("doc").and_then(Value::as_object).unwrap_or(object);
        let question = QUESTIONS.iter().find_map(|name| object.get(*name)?.as_str()).ok_or_else(|| {
            let names: Vec<&str> = object.keys().take(8).map(String::as_str).collect();
            format!(
                "no question here (the keys are {}); call it `question`, the choices `choices`, the right one `answer`",
                names.join(", ")
            )
        })?;
        let choices = choices(object);
        let answer =
            ANSWERS.iter().find_map(|name| object.get(*name)).map(|answer| answer_text(answer, &choices, object));
        Ok(Self { question: question.to_owned(), choices, answer: answer.unwrap_or_default(), ..Self::default() })
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|choice| choice.as_str().map(str::to_owned)).collect()
}

fn choices(object: &Map<String, Value>) -> Vec<String> {
    let listed = CHOICES.iter().find_map(|name| {
        let value = object.get(*name)?;
        // ARC keeps `{"text": [...], "label": [...]}`.
        texts(value).or_else(|| texts(value.get("text")?))
    });
    let targets = || texts(object.get("mc1_targets")?.get("choices")?);
    let single = || SINGLE_CHOICES.iter().filter_map(|name| Some(object.get(*name)?.as_str()?.to_owned())).collect();
    listed.or_else(targets).unwrap_or_else(single)
}

/// The right answer: a text as it stands, a number or a letter by its place among the choices.
fn answer_text(answer: &Value, choices: &[String], object: &Map<String, Value>) -> String {
    let chosen = |place: usize| choices.get(place).cloned();
    match answer {
        Value::Number(number) => {
            number.as_u64().and_then(|place| chosen(place as usize)).unwrap_or_else(|| number.to_string())
        }
        Value::String(text) => {
            let labels = object.get("choices").and_then(|value| texts(value.get("label")?));
            let labelled = labels.and_then(|labels| labels.iter().position(|label| label == text));
            let letter = || match text.as_bytes() {
                [letter @ b'A'..=b'J'] => Some(usize::from(letter - b'A')),
                [digit @ b'0'..=b'9'] => Some(usize::from(digit - b'0')),
                _ => None,
            };
            labelled.or_else(letter).and_then(chosen).unwrap_or_else(|| text.clone())
        }
        Value::Array(answers) => answers.iter().find_map(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}
