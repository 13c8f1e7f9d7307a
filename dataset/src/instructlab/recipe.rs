//! `InstructLab`'s recipes: which files, how many lines of each, and the system prompt of all.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::atomic::write_atomically;
use crate::error::DatasetError;
use crate::formats::Problem;

/// How much of a file is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SamplingSize {
    /// So many lines: a whole number in the recipe.
    Lines(u64),
    /// A share of its lines: a number with a point. 1.0 is all, 2.0 each twice.
    Share(f64),
}

impl SamplingSize {
    /// Lines taken of a file with `lines`; a part of a line is left out, as instructlab-sdg does.
    pub fn lines(self, lines: u64) -> u64 {
        match self {
            Self::Lines(wanted) => wanted,
            Self::Share(share) => (lines as f64 * share) as u64,
        }
    }

    /// So much more or less of it.
    pub(super) fn weighted(self, weight: f64) -> Self {
        match self {
            Self::Lines(lines) => Self::Lines((lines as f64 * weight).round() as u64),
            Self::Share(share) => Self::Share(share * weight),
        }
    }
}

impl Serialize for SamplingSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Lines(lines) => serializer.serialize_u64(lines),
            Self::Share(share) => serializer.serialize_f64(share),
        }
    }
}

impl<'de> Deserialize<'de> for SamplingSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = SamplingSize;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of lines such as 30, or a share such as 1.0")
            }

            fn visit_u64<E>(self, lines: u64) -> Result<SamplingSize, E> {
                Ok(SamplingSize::Lines(lines))
            }

            fn visit_f64<E: serde::de::Error>(self, share: f64) -> Result<SamplingSize, E> {
                if share.is_finite() && share >= 0.0 {
                    Ok(SamplingSize::Share(share))
                } else {
                    Err(E::custom(format!("a share is zero or more, this is {share}")))
                }
            }
        }
        deserializer.deserialize_any(Size)
    }
}

/// A file of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Where it lies: from the recipe's folder, or from the root.
    pub path: PathBuf,
    /// How much of it is taken.
    #[serde(default = "all")]
    pub sampling_size: SamplingSize,
}

fn all() -> SamplingSize {
    SamplingSize::Share(1.0)
}

/// What a recipe says of all its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipeMetadata {
    /// The system prompt of every line; instructlab-sdg writes an empty one as a turn too.
    #[serde(default)]
    pub sys_prompt: Option<String>,
}

/// A recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The files, in the order of their lines.
    #[serde(default)]
    pub datasets: Vec<RecipeFile>,
    /// What is said of all lines.
    #[serde(default)]
    pub metadata: RecipeMetadata,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// A file that cannot be read or is not a recipe, with the line; one that names no file, which instructlab-sdg takes for
    /// success and then trains on nothing.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let text = std::fs::read_to_string(path).map_err(DatasetError::file("read", path))?;
        let refuse =
            |line: Option<usize>, what: String| DatasetError::Problem(Problem { path: path.to_path_buf(), line, what });
        let recipe: Option<Self> = serde_yaml::from_str(&text).map_err(|error| {
            refuse(error.location().map(|place| place.line()), format!("this is not a recipe: {error}"))
        })?;
        let recipe = recipe.unwrap_or_default();
        if recipe.datasets.is_empty() {
            let what = "the recipe names no data sets, so that nothing would be mixed; write them under `datasets`, or \
                        generate rows first";
            return Err(refuse(None, what.to_owned()));
        }
        Ok(recipe)
    }

    /// Writes a recipe, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), DatasetError> {
        write_atomically(path, |out| serde_yaml::to_writer(out, self).map_err(std::io::Error::other))
            .map_err(DatasetError::file("write", path))
    }
}
