//! Rows to a teacher's probabilities: at each token that the student will learn, the teacher's most probable ones.
//!
//! The teacher reads the very tokens that training will feed to the student, so both must name tokens by the same ids.

use super::StageContext;
use crate::content::hash_bytes;
use crate::models::ResolvedModel;
use crate::outcome::{Failure, Interrupted};
use anyhow::Result;
use espalier_dataset::{TeacherOrigin, TeacherRow, read_teacher, write_teacher};
use espalier_inference::{NativeEngine, ScoreRequest, TokenLogprob};
use espalier_model::{LoraAdapter, Model};
use espalier_train::{DataSource, Sequence, TrainConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Raised when the probabilities of the same rows would come out otherwise.
pub const VERSION: u32 = 1;

/// Name of the table in the output folder.
pub const OUTPUT: &str = "teacher.parquet";

/// Rows that are computed between two files of an interrupted stage.
const PART_ROWS: usize = 128;

/// Configuration of `teach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeachStage {
    /// Tokens kept at each place; the probability of all others is kept as one number.
    #[serde(default = "default_top_k")]
    pub top_k: usize,
    /// Adapter of the teacher: a PEFT folder or a GGUF adapter.
    #[serde(default)]
    pub adapter: Option<PathBuf>,
}

fn default_top_k() -> usize {
    32
}

impl Default for TeachStage {
    fn default() -> Self {
        Self { top_k: default_top_k(), adapter: None }
    }
}

/// Who teaches whom on which rows.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The model that will learn: its template and tokenizer make the tokens.
    pub student: &'a ResolvedModel,
    /// The model that is asked.
    pub teacher: &'a ResolvedModel,
    /// The rows that it will learn from.
    pub sources: &'a [DataSource],
}

/// What a table says of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Taught {
    /// Rows.
    pub rows: usize,
    /// Places in them.
    pub tokens: usize,
    /// Mean probability of the kept tokens together.
    pub kept: f64,
    /// Share of the places where the teacher's first choice is the row's own token.
    pub agreement: f64,
}

impl Taught {
    /// A line for a person.
    pub fn summary(&self) -> String {
        format!(
            "{} rows, {} tokens; the tokens kept hold {:.2} % of the teacher's probability, its first choice is the row's own token in {:.1} %",
            self.rows,
            self.tokens,
            100.0 * self.kept,
            100.0 * self.agreement
        )
    }
}

/// Asks the teacher about every row and writes the table to `out`; `work` keeps what an interrupted run has.
pub fn run(
    config: &TeachStage,
    inputs: Inputs<'_>,
    work: &Path,
    out: &Path,
    context: &StageContext<'_>,
) -> Result<Taught> {
    if config.top_k == 0 {
        return Err(Failure::usage("top_k: no token at all teaches nothing").hint("32 is the default").into());
    }
    let (student, teacher) = (Model::open(&inputs.student.path)?, Model::open(&inputs.teacher.path)?);
    check_vocabularies(&student, &teacher, &inputs)?;
    let rows = rows(&student, &teacher, inputs.sources, context)?;
    let adapter = config.adapter.as_ref().map(|path| LoraAdapter::load(path, teacher.config())).transpose()?;
    let engine = NativeEngine::load(&teacher, adapter.as_ref(), &context.engine_options())?;
    let known = student.tokenizer().vocabulary().min(student.config().vocabulary);
    let origin = TeacherOrigin {
        teacher: engine.identity().to_owned(),
        vocabulary: student.tokenizer().vocabulary_sha256(),
        top_k: config.top_k.min(known).min(teacher.config().vocabulary),
    };
    let mut table = Vec::with_capacity(rows.len());
    let mut parts = Vec::new();
    for part_rows in rows.chunks(PART_ROWS) {
        let part = part_path(work, &origin, part_rows);
        if part.exists() {
            table.extend(read_teacher(&part)?.1);
        } else {
            let progress = |done: usize| {
                context.progress("", (table.len() + done) as u64, rows.len() as u64, "rows", "");
            };
            let asked = ask(&engine, &origin, known, part_rows, &progress, context)?;
            write_teacher(&part, &origin, &asked)?;
            table.extend(asked);
        }
        parts.push(part);
    }
    write_teacher(out, &origin, &table)?;
    for part in parts {
        let _ = fs::remove_file(part);
    }
    Ok(taught(&rows, &table, origin.top_k))
}

/// Refuses a teacher whose ids stand for other tokens: its probabilities would be about other words.
fn check_vocabularies(student: &Model, teacher: &Model, inputs: &Inputs<'_>) -> Result<()> {
    let Some(id) = student.tokenizer().first_difference(teacher.tokenizer()) else { return Ok(()) };
    let text = |model: &Model| match model.tokenizer().token_text(id) {
        "" => "nothing".to_owned(),
        text => format!("{text:?}"),
    };
    let (of_student, of_teacher) = (&inputs.student.reference, &inputs.teacher.reference);
    Err(Failure::usage(format!(
        "the teacher {of_teacher} and the student {of_student} have different tokenizers (token {id} is {} there and {} \
         here), so its probabilities are about other tokens",
        text(teacher),
        text(student)
    ))
    .hint(format!(
        "such a teacher teaches by its texts: write `teacher: {of_teacher}` in the pipeline file, let `generate` write the \
         rows with it, and train on them without `teach`"
    ))
    .into())
}

/// Every different row as training will see it, as far as the teacher's window holds it.
fn rows(student: &Model, teacher: &Model, sources: &[DataSource], context: &StageContext<'_>) -> Result<Vec<Sequence>> {
    // The last token of a row is only predicted. How long a row may be in training is for training to say.
    let window = TrainConfig { max_sequence: teacher.config().context + 1, ..TrainConfig::default() };
    let encoded = super::train::read(student, sources, &window, context)?;
    if encoded.dropped > 0 {
        context.warn(format!(
            "{} rows are longer than the teacher's window of {} tokens: it does not see them",
            encoded.dropped,
            teacher.config().context
        ));
    }
    let mut seen = BTreeSet::new();
    Ok(encoded.rows.into_iter().filter(|row| seen.insert(row.teacher_key())).collect())
}

/// The file of a part: its name holds all that its content depends on, so one that exists is the right one.
fn part_path(work: &Path, origin: &TeacherOrigin, rows: &[Sequence]) -> PathBuf {
    let mut key = format!("{VERSION}\n{}\n{}\n{}\n", origin.teacher, origin.vocabulary, origin.top_k);
    for row in rows {
        key += &format!("{} {:?}\n", row.teacher_key(), row.learned());
    }
    work.join(format!("{}.parquet", &hash_bytes(key.as_bytes())[..24]))
}

/// The teacher's most probable tokens at each learned token of some rows.
fn ask(
    engine: &NativeEngine,
    origin: &TeacherOrigin,
    known: usize,
    rows: &[Sequence],
    progress: &dyn Fn(usize),
    context: &StageContext<'_>,
) -> Result<Vec<TeacherRow>> {
    let first = |row: &Sequence| row.learned().first().map_or(row.tokens.len() - 1, |&first| first as usize);
    let request = |row: &Sequence| {
        let (given, answer) = row.tokens.split_at(first(row));
        ScoreRequest { context: given.to_vec(), continuation: answer.to_vec() }
    };
    let requests: Vec<ScoreRequest> = rows.iter().map(request).collect();
    let mut found: Vec<Option<TeacherRow>> = vec![None; rows.len()];
    let mut done = 0;
    engine.top_logprobs(&requests, origin.top_k, known, &mut |index, places| {
        let row = &rows[index];
        found[index] = Some(teacher_row(row, first(row), &places));
        done += 1;
        progress(done);
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    found.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| Interrupted.into())
}

/// A row of the table from the distributions at all tokens from `first` on.
fn teacher_row(row: &Sequence, first: usize, places: &[TokenLogprob]) -> TeacherRow {
    let positions = row.learned();
    let top = positions.iter().flat_map(|&position| &places[position as usize - first].top);
    let (tokens, log_probabilities) = top.map(|&(token, value)| (token, value.min(0.0))).unzip();
    TeacherRow { row: row.teacher_key(), positions, tokens, log_probabilities }
}

fn taught(rows: &[Sequence], table: &[TeacherRow], top_k: usize) -> Taught {
    let (mut tokens, mut kept, mut agreeing) = (0, 0.0, 0);
    for (row, found) in rows.iter().zip(table) {
        tokens += found.positions.len();
        kept += found.log_probabilities.iter().map(|&value| f64::from(value).exp()).sum::<f64>();
        let choices = found.positions.iter().zip(found.tokens.chunks(top_k));
        agreeing += choices.filter(|(position, top)| row.tokens[**position as usize] == top[0]).count();
    }
    let share = |sum: f64| sum / tokens.max(1) as f64;
    Taught { rows: table.len(), tokens, kept: share(kept), agreement: share(agreeing as f64) }
}
