//! Which data a run reads, as the configuration says it.

use std::fmt;
use std::path::PathBuf;

use espalier_dataset::{Example, Format};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::TrainError;

/// Which words of a conversation the model learns, where its messages do not say it themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Learned {
    /// Every answer of the assistant.
    #[default]
    Answers,
    /// The last answer.
    Last,
    /// Everything, questions and template too.
    All,
}

/// Which rows of a source are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// Rows of knowledge leaves.
    Knowledge,
    /// Rows of skills.
    Skill,
}

impl RowKind {
    /// Whether a row is of this kind: by its own `metadata.kind`, else by the branch of its leaf.
    pub fn holds(self, example: &Example) -> bool {
        let kind = example.kind.as_deref().or_else(|| example.leaf.as_deref()?.split('/').next()).unwrap_or_default();
        match self {
            Self::Knowledge => kind == "knowledge",
            Self::Skill => kind.ends_with("skill") || kind.ends_with("skills"),
        }
    }
}

/// One entry of `data`: a file, or a mapping that says more.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DataItem {
    /// A file, or several by `*`, `?` and `**`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A `generate` stage whose rows are meant, in place of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// What the name and the first row tell otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How often a row comes in an epoch: 1 once, 2 twice, 0.25 in every fourth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Only the first rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// What of its conversations is learned, where it is not the run's `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Learned>,
    /// Only rows of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<RowKind>,
    /// Its name in the plan and beside the losses (the file's, otherwise).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl DataItem {
    /// A file with nothing said about it.
    pub fn file(file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// Refuses an entry of rows to look at that makes no sense; `name` is the key that it stands under.
    pub fn validate_apart(&self, name: &'static str) -> Result<(), TrainError> {
        if self.weight.is_some() {
            let problem = "a `weight` says how often a row is trained on, and these rows are not; remove it".to_owned();
            return Err(TrainError::Config { name, problem });
        }
        self.validate(name)
    }

    /// Refuses an entry that makes no sense; `name` is the key that it stands under.
    pub fn validate(&self, name: &'static str) -> Result<(), TrainError> {
        let refuse = |problem: String| Err(TrainError::Config { name, problem });
        match (&self.file, &self.stage) {
            (None, None) => return refuse("an entry needs a `file`, or a `stage` whose rows are meant".to_owned()),
            (Some(file), Some(stage)) => {
                return refuse(format!("an entry names the file {file} and the stage {stage}: write two entries"));
            }
            _ => {}
        }
        match (self.weight, self.limit) {
            (Some(weight), _) if !(weight.is_finite() && weight > 0.0) => refuse(format!(
                "the weight {weight} must be above zero; without a weight every row comes once an epoch"
            )),
            (_, Some(0)) => refuse("a limit of 0 rows leaves nothing; remove the entry".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The entry as a mapping; [`DataItem`] also takes the name of a file alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Entry {
    file: Option<String>,
    stage: Option<String>,
    format: Option<Format>,
    weight: Option<f64>,
    limit: Option<usize>,
    loss: Option<Learned>,
    kind: Option<RowKind>,
    name: Option<String>,
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = DataItem;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a file, or a mapping such as {file: rows.jsonl, weight: 0.5}")
    }

    fn visit_str<E>(self, file: &str) -> Result<DataItem, E> {
        Ok(DataItem::file(file))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataItem, A::Error> {
        let Entry { file, stage, format, weight, limit, loss, kind, name } =
            Entry::deserialize(MapAccessDeserializer::new(map))?;
        Ok(DataItem { file, stage, format, weight, limit, loss, kind, name })
    }
}

impl<'de> Deserialize<'de> for DataItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<DataItem>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of files, such as [rows.jsonl, {file: notes/*.md, weight: 0.5}]")
    }

    fn visit_str<E>(self, file: &str) -> Result<Self::Value, E> {
        Ok(vec![DataItem::file(file)])
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(vec![ItemVisitor.visit_map(map)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

/// What is held out of training, to be scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Validation {
    /// A share of the lines of the data, drawn by the seed; 0 is nothing.
    Share(f64),
    /// Rows of their own.
    Rows(Vec<DataItem>),
}

impl Validation {
    /// Whether anything is held out.
    pub fn is_some(&self) -> bool {
        match self {
            Self::Share(share) => *share > 0.0,
            Self::Rows(items) => !items.is_empty(),
        }
    }

    /// Entries of rows of their own.
    pub fn items(&self) -> &[DataItem] {
        match self {
            Self::Share(_) => &[],
            Self::Rows(items) => items,
        }
    }
}

struct ValidationVisitor;

impl<'de> Visitor<'de> for ValidationVisitor {
    type Value = Validation;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a share of the rows such as 0.05, or files of rows such as [held-out.jsonl]")
    }

    fn visit_f64<E>(self, share: f64) -> Result<Validation, E> {
        Ok(Validation::Share(share))
    }

    fn visit_u64<E>(self, share: u64) -> Result<Validation, E> {
        Ok(Validation::Share(share as f64))
    }

    fn visit_i64<E>(self, share: i64) -> Result<Validation, E> {
        Ok(Validation::Share(share as f64))
    }

    fn visit_str<E>(self, file: &str) -> Result<Validation, E> {
        Ok(Validation::Rows(vec![DataItem::file(file)]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Validation, A::Error> {
        ListVisitor.visit_map(map).map(Validation::Rows)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Validation, A::Error> {
        ListVisitor.visit_seq(list).map(Validation::Rows)
    }
}

impl<'de> Deserialize<'de> for Validation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValidationVisitor)
    }
}

/// One entry or a list of them.
pub(crate) fn items<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DataItem>, D::Error> {
    deserializer.deserialize_any(ListVisitor)
}

/// An entry whose files were found.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    /// Its name in the plan and beside the losses.
    pub name: String,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// What the name and the first row tell otherwise.
    pub format: Option<Format>,
    /// How often a row comes in an epoch.
    pub weight: f64,
    /// Only the first rows.
    pub limit: Option<usize>,
    /// What of its conversations is learned, where it is not the run's `loss`.
    pub loss: Option<Learned>,
    /// Only rows of this kind.
    pub kind: Option<RowKind>,
}

impl DataSource {
    /// What `item` says, about `files`.
    pub fn new(item: &DataItem, files: Vec<PathBuf>) -> Self {
        let name = item.name.clone().or_else(|| item.stage.clone()).or_else(|| item.file.clone()).unwrap_or_default();
        Self {
            name,
            files,
            format: item.format,
            weight: item.weight.unwrap_or(1.0),
            limit: item.limit,
            loss: item.loss,
            kind: item.kind,
        }
    }
}
