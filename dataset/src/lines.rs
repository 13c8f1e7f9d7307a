//! Lines of messages from whatever holds conversations: a table of rows, a version of a data set, a file of another tool.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::DatasetError;
use crate::formats::{Records, TrainingLine};
use crate::instructlab::{AuxiliaryInstructions, KnowledgeForms};
use crate::row::Row;
use crate::versions::{RowSource, Versions};

/// The form in which rows become lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineForm {
    /// The turns as they stand.
    #[default]
    Plain,
    /// Rows of knowledge as `InstructLab`'s phase 0.7 learns them; other rows are left out.
    Phase07,
    /// Rows of knowledge as its phase 1.0 learns them, and skills as they stand.
    Phase10,
}

/// Lines that can be read any number of times.
#[derive(Clone, Debug)]
pub struct LineSource(Source);

#[derive(Clone, Debug)]
enum Source {
    Rows(RowSource, LineForm, Option<Box<KnowledgeForms>>),
    File(PathBuf),
}

impl LineSource {
    /// The accepted rows of a source that are for training.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn of_rows(
        rows: RowSource,
        form: LineForm,
        seed: u64,
        instructions: &AuxiliaryInstructions,
    ) -> Result<Self, DatasetError> {
        let forms = match form {
            LineForm::Plain => None,
            LineForm::Phase07 | LineForm::Phase10 => {
                let knowledge = learned(&rows).filter(|row| row.as_ref().map_or(true, is_knowledge));
                Some(Box::new(KnowledgeForms::gather(knowledge, seed, instructions.clone())?))
            }
        };
        Ok(Self(Source::Rows(rows, form, forms)))
    }

    /// What lies under a path: rows of ours in `form`, or a file of messages of any tool as it is.
    ///
    /// # Errors
    /// When it cannot be read, and when another form than the plain one is asked of a file that is not of rows.
    pub fn open(path: &Path, version: Option<u32>, form: LineForm, seed: u64) -> Result<Self, DatasetError> {
        let table = path.extension().is_some_and(|ending| ending == "parquet");
        if table || path.is_dir() || Versions::exist(path) || version.is_some() || form != LineForm::Plain {
            let rows = RowSource::find(path, version)?;
            return Self::of_rows(rows, form, seed, &AuxiliaryInstructions::default());
        }
        // Opened once, so that a file of no known form is refused before anything is written.
        Records::open(path, None)?;
        Ok(Self(Source::File(path.to_path_buf())))
    }

    /// The lines, one after the other.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn lines(&self) -> Result<Box<dyn Iterator<Item = Result<TrainingLine, DatasetError>> + '_>, DatasetError> {
        match &self.0 {
            Source::Rows(rows, form, forms) => Ok(Box::new(learned(rows).flat_map(move |row| match row {
                Ok(row) => lines_of(&row, *form, forms.as_deref()).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }))),
            Source::File(path) => Ok(Box::new(Records::open(path, None)?.map(move |record| {
                let record = record.map_err(DatasetError::Problem)?;
                let line = record.line();
                let refuse = |reason| DatasetError::Line { path: path.clone(), line, reason };
                record.training_line().map_err(refuse)
            }))),
        }
    }
}

/// The rows that may be trained on.
fn learned(rows: &RowSource) -> impl Iterator<Item = Result<Row, DatasetError>> {
    rows.rows().filter(|row| row.as_ref().map_or(true, Row::is_learned))
}

fn is_knowledge(row: &Row) -> bool {
    row.kind == "knowledge"
}

fn lines_of(row: &Row, form: LineForm, forms: Option<&KnowledgeForms>) -> Vec<TrainingLine> {
    match (form, forms, is_knowledge(row)) {
        (LineForm::Phase07, Some(forms), true) => forms.phase07(row),
        (LineForm::Phase10, Some(forms), true) => forms.phase10(row),
        (LineForm::Phase07, ..) => Vec::new(),
        _ => vec![TrainingLine::of_row(row)],
    }
}
