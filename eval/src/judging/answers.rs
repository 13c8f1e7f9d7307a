//! The answers of a model to questions of several turns.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use espalier_dataset::write_atomically;
use espalier_inference::{Message, Prompt, Request, Sampling};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::questions::{Question, question_id};
use super::transcript::Transcript;
use crate::error::EvalError;
use crate::evaluation::sha256;

/// The turns of each question that have an answer; a turn without one ends its question.
pub type Answers = BTreeMap<u128, Vec<String>>;

/// Asks all questions, turn by turn. A turn's temperature is that of its question's category, its randomness that of its number.
///
/// # Errors
/// As [`Transcript::ask`].
pub fn answer(
    model: &mut Transcript<'_>,
    questions: &[Question],
    max_tokens: usize,
    on_reply: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Answers, EvalError> {
    let mut answers: Answers = questions.iter().map(|question| (question.question_id, Vec::new())).collect();
    let turns = questions.iter().map(|question| question.turns.len()).max().unwrap_or(0);
    for turn in 0..turns {
        let mut asked = Vec::new();
        let mut requests = Vec::new();
        for question in questions {
            let given = answers.get(&question.question_id).map_or(&[][..], Vec::as_slice);
            if given.len() != turn || question.turns.len() <= turn {
                continue;
            }
            let mut messages = Vec::with_capacity(2 * turn + 1);
            for (asked, said) in question.turns.iter().zip(given) {
                messages.push(Message::new("user", asked.as_str()));
                messages.push(Message::new("assistant", said.as_str()));
            }
            messages.push(Message::new("user", question.turns[turn].as_str()));
            requests.push(Request {
                sampling: Sampling::at_temperature(question.temperature()),
                seed: question.question_id as u64,
                ..Request::new(Prompt::Chat(messages), max_tokens)
            });
            asked.push(question.question_id);
        }
        for (id, reply) in asked.into_iter().zip(model.ask(&requests, on_reply)?) {
            if let (Some(text), Some(given)) = (reply.text, answers.get_mut(&id)) {
                given.push(text);
            }
        }
    }
    Ok(answers)
}

/// A line of `FastChat`'s `model_answer/MODEL.jsonl`.
#[derive(Serialize, Deserialize)]
struct AnswerLine {
    #[serde(with = "question_id")]
    question_id: u128,
    answer_id: String,
    model_id: String,
    choices: Vec<Choice>,
    /// `FastChat` writes the time here; ours is 0, so that equal answers make equal files.
    tstamp: f64,
}

#[derive(Serialize, Deserialize)]
struct Choice {
    index: usize,
    turns: Vec<String>,
}

/// Writes answers in `FastChat`'s form.
///
/// # Errors
/// When the file cannot be written.
pub fn write_answers(path: &Path, model: &str, answers: &Answers) -> Result<(), EvalError> {
    let lines = answers.iter().map(|(id, turns)| AnswerLine {
        question_id: *id,
        answer_id: sha256(&format!("{model}\n{id}\n{}", turns.join("\n")))[..22].to_owned(),
        model_id: model.to_owned(),
        choices: vec![Choice { index: 0, turns: turns.clone() }],
        tstamp: 0.0,
    });
    write_lines(path, lines)
}

/// Reads answers in `FastChat`'s form: the first choice of each question.
///
/// # Errors
/// When the file cannot be read or a line has another form.
pub fn read_answers(path: &Path) -> Result<Answers, EvalError> {
    let text = std::fs::read_to_string(path).map_err(EvalError::file(path, "read the answers"))?;
    let mut answers = Answers::new();
    for (line, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let parsed: AnswerLine = serde_json::from_str(row).map_err(|error| EvalError::Line {
            path: path.to_owned(),
            line: line + 1,
            problem: format!("{error}; expected an answer in FastChat's form"),
        })?;
        answers
            .insert(parsed.question_id, parsed.choices.into_iter().next().map_or_else(Vec::new, |first| first.turns));
    }
    Ok(answers)
}

/// Writes one JSON object a line, wholly or not at all; the folder is made where it is not there.
pub(super) fn write_lines<T: Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> Result<(), EvalError> {
    make_folder(path)?;
    write_atomically(path, |file| {
        for line in lines {
            serde_json::to_writer(&mut *file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
    .map_err(EvalError::file(path, "write"))
}

/// Writes the lines of one model (or pair of models) into a file that holds those of others too, sorted by `of`, what a line is
/// about. Lines of the same model that were there give way.
pub(super) fn merge_lines<T: Serialize>(
    path: &Path,
    lines: impl Iterator<Item = T>,
    of: impl Fn(&Value) -> String,
) -> Result<(), EvalError> {
    let read = |text: String| {
        let key = serde_json::from_str::<Value>(&text).map_or_else(|_| String::new(), |line| of(&line));
        (key, text)
    };
    // Strings and numbers always have a JSON form.
    let own: Vec<(String, String)> = lines.map(|line| read(serde_json::to_string(&line).unwrap_or_default())).collect();
    let there = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(EvalError::file(path, "read")(error)),
    };
    let mut all: Vec<(String, String)> = there.lines().map(|line| read(line.to_owned())).collect();
    all.retain(|(key, _)| own.iter().all(|(other, _)| key != other));
    all.extend(own);
    all.sort_by(|first, second| first.0.cmp(&second.0));
    make_folder(path)?;
    write_atomically(path, |file| all.iter().try_for_each(|(_, line)| writeln!(file, "{line}")))
        .map_err(EvalError::file(path, "write"))
}

fn make_folder(path: &Path) -> Result<(), EvalError> {
    path.parent()
        .map_or(Ok(()), |folder| std::fs::create_dir_all(folder).map_err(EvalError::file(folder, "make the folder")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_written_and_read_in_fastchats_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model_answer").join("m.jsonl");
        let answers = Answers::from([(81, vec!["a".to_owned(), "b\n".to_owned()]), (u128::MAX, vec![])]);
        write_answers(&path, "m", &answers).unwrap();
        assert_eq!(read_answers(&path).unwrap(), answers);
        let line = std::fs::read_to_string(&path).unwrap();
        assert!(line.starts_with(r#"{"question_id":81,"answer_id":""#), "{line}");
        assert!(line.contains(r#""model_id":"m","choices":[{"index":0,"turns":["a","b\n"]}],"tstamp":0.0}"#), "{line}");
    }
}
