//! Rows in the forms that other tools read.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::atomic::AtomicFile;
use crate::error::DatasetError;
use crate::formats::{Problem, TrainingLine};
use crate::instructlab::{FolderOptions, write_branch_tasks, write_folder};
use crate::lines::{LineForm, LineSource};
use crate::row::{Row, Split, Verdict};
use crate::versions::RowSource;

/// What accepted rows are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputForm {
    /// `InstructLab`'s lines of phase 0.7: knowledge alone, all of it learned.
    KnowledgeTrainMsgs,
    /// `InstructLab`'s lines of phase 1.0: knowledge behind documents, and skills.
    SkillsTrainMsgs,
    /// Messages with their metadata.
    Messages,
    /// `train.jsonl` and `test.jsonl` of `system`, `user` and `assistant`; the second has the rows that are held out.
    TrainTest,
    /// `instruction`, `input`, `output`; turns before the last go to `history`.
    Alpaca,
    /// `conversations` of `from` and `value`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// The folder that `ilab data generate` leaves behind: leaves, recipes and mixtures.
    Instructlab,
    /// Tasks of multiple choice for lm-evaluation-harness.
    LmEval,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Converted {
    /// Lines written, in all files together.
    pub lines: u64,
    /// Rows or lines left out because a turn of them says nothing.
    pub empty: u64,
    /// Rows that the form cannot say.
    pub unfit: u64,
}

/// Writes the accepted rows of a source in a form: a file, or a folder for those of several. Whole or not at all.
///
/// # Errors
/// When rows cannot be read, nothing is left to write, or a file cannot be written.
pub fn convert(
    rows: &RowSource,
    form: OutputForm,
    options: &FolderOptions,
    out: &Path,
) -> Result<Converted, DatasetError> {
    let found = match form {
        OutputForm::KnowledgeTrainMsgs => lines(rows, LineForm::Phase07, options, out)?,
        OutputForm::SkillsTrainMsgs => lines(rows, LineForm::Phase10, options, out)?,
        OutputForm::Messages => lines(rows, LineForm::Plain, options, out)?,
        OutputForm::Alpaca => objects(rows, Split::Train, out, |row| alpaca(row, &options.system_prompt))?,
        OutputForm::ShareGpt => objects(rows, Split::Train, out, |row| Some(sharegpt(row, &options.system_prompt)))?,
        OutputForm::TrainTest => {
            let asked = |row: &Row| Some(train_test(row, &options.system_prompt));
            let train = objects(rows, Split::Train, &out.join("train.jsonl"), asked)?;
            let test = objects(rows, Split::HeldOut, &out.join("test.jsonl"), asked)?;
            Converted { lines: train.lines + test.lines, empty: train.empty + test.empty, ..train }
        }
        OutputForm::Instructlab => {
            let summary = write_folder(rows, options, out)?;
            Converted { lines: summary.train + summary.test + summary.held_out, empty: summary.empty, unfit: 0 }
        }
        OutputForm::LmEval => {
            let tasks = write_branch_tasks(rows, out)?;
            Converted { lines: tasks.iter().map(|task| task.questions).sum(), ..Converted::default() }
        }
    };
    if found.lines > 0 {
        return Ok(found);
    }
    let what = format!(
        "no row is left to write ({} say nothing, {} do not fit the form); `pipeline data funnel` says what was accepted",
        found.empty, found.unfit
    );
    Err(DatasetError::Problem(Problem { path: out.to_path_buf(), line: None, what }))
}

fn lines(rows: &RowSource, form: LineForm, options: &FolderOptions, out: &Path) -> Result<Converted, DatasetError> {
    let source = LineSource::of_rows(rows.clone(), form, options.seed, &options.instructions)?;
    written(out, |file, found| {
        for line in source.lines()? {
            let mut line = line?;
            if line.is_empty() {
                found.empty += 1;
                continue;
            }
            if !options.system_prompt.is_empty() {
                line.set_system(&options.system_prompt);
            }
            line.write(file).map_err(DatasetError::file("write", out))?;
            found.lines += 1;
        }
        Ok(())
    })
}

fn objects(
    rows: &RowSource,
    split: Split,
    out: &Path,
    object: impl Fn(&Row) -> Option<Value>,
) -> Result<Converted, DatasetError> {
    written(out, |file, found| {
        for row in rows.rows() {
            let row = row?;
            if row.verdict != Verdict::Accepted || row.split != split {
                continue;
            }
            if TrainingLine::of_row(&row).is_empty() {
                found.empty += 1;
                continue;
            }
            let Some(object) = object(&row) else {
                found.unfit += 1;
                continue;
            };
            writeln!(file, "{object}").map_err(DatasetError::file("write", out))?;
            found.lines += 1;
        }
        Ok(())
    })
}

/// Fills a file that has its name only if something stands in it.
fn written(
    out: &Path,
    fill: impl FnOnce(&mut AtomicFile, &mut Converted) -> Result<(), DatasetError>,
) -> Result<Converted, DatasetError> {
    let mut file = AtomicFile::create(out).map_err(DatasetError::file("write", out))?;
    let mut found = Converted::default();
    fill(&mut file, &mut found)?;
    if found.lines > 0 {
        file.commit().map_err(DatasetError::file("write", out))?;
    }
    Ok(found)
}

/// The system prompt of a row: the one that is asked for, else its own.
fn system<'a>(row: &'a Row, prompt: &'a str) -> &'a str {
    let own = row.turns.iter().find(|turn| turn.role == "system").map_or("", |turn| turn.content.as_str());
    if prompt.is_empty() { own } else { prompt }
}

/// A line of `train.jsonl` and `test.jsonl`, which have room for one question and one answer.
pub(crate) fn train_test(row: &Row, prompt: &str) -> Value {
    let said = |role: &str| row.turns.iter().find(|turn| turn.role == role).map_or("", |turn| turn.content.trim());
    json!({"system": system(row, prompt), "user": said("user"), "assistant": said("assistant")})
}

/// The last question and answer, with those before as history; `None` where the turns are not questions and answers.
fn alpaca(row: &Row, prompt: &str) -> Option<Value> {
    let said: Vec<(&str, &str)> = row
        .turns
        .iter()
        .filter(|turn| turn.role != "system")
        .map(|turn| (turn.role.as_str(), turn.content.as_str()))
        .collect();
    let pair = |pair: &[(&str, &str)]| match pair {
        [("user", question), ("assistant", answer)] => Some(json!([question, answer])),
        _ => None,
    };
    let pairs: Vec<Value> = said.chunks(2).map(pair).collect::<Option<_>>()?;
    let (last, history) = pairs.split_last()?;
    let mut object = json!({"instruction": last[0], "input": "", "output": last[1]});
    if !history.is_empty() {
        object["history"] = history.into();
    }
    if !system(row, prompt).is_empty() {
        object["system"] = system(row, prompt).into();
    }
    object["id"] = row.id.clone().into();
    Some(object)
}

fn sharegpt(row: &Row, prompt: &str) -> Value {
    let said = row.turns.iter().filter(|turn| turn.role != "system").map(|turn| {
        let from = if turn.role == "assistant" { "gpt" } else { "human" };
        json!({"from": from, "value": turn.content})
    });
    let mut object = json!({"conversations": said.collect::<Vec<_>>()});
    if !system(row, prompt).is_empty() {
        object["system"] = system(row, prompt).into();
    }
    object["id"] = row.id.clone().into();
    object
}
