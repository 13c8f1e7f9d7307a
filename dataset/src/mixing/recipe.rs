//! Our own recipes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::DatasetError;
use crate::formats::Problem;
use crate::lines::LineForm;

/// A mixture: sources with how much is taken of each.
///
/// ```yaml
/// espalier: 1
/// seed: 7
/// system: You are a helpful assistant.
/// sources:
///   - rows: runs/ponds/rows            # a table, a data set with versions, or a file of messages
///     form: phase10                    # plain, phase07 or phase10
///     leaves: {knowledge/ponds: 2}     # this branch twice, others once
///     most_per_leaf: 500
///   - rows: general.jsonl
///     part: 0.2                        # a fifth of the mixture, against forgetting
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixRecipe {
    /// The version of the form: 1.
    pub espalier: u32,
    /// The seed of all draws and of the order.
    #[serde(default)]
    pub seed: u64,
    /// The system prompt of every line, in place of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Where lines come from.
    pub sources: Vec<MixSource>,
}

/// A source of a mixture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSource {
    /// A table of rows, a data set with versions, or a file of messages of any tool; from the folder of the recipe.
    pub rows: PathBuf,
    /// The version of a data set; otherwise its newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What rows of knowledge become.
    #[serde(default)]
    pub form: LineForm,
    /// So many lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// This share of its lines: 1 is all, which it is otherwise; 2 is each twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// This share of the whole mixture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<f64>,
    /// The share of the lines of a branch of leaves, in place of the weight that their leaf gives them; the longest that fits
    /// counts. 0 leaves it out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leaves: BTreeMap<String, f64>,
    /// At most so many lines of a leaf, before the amount of the source is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_per_leaf: Option<u64>,
}

impl MixRecipe {
    /// Whether a text is a recipe of ours, and not one of `InstructLab`'s.
    pub fn is_ours(text: &str) -> bool {
        text.lines().any(|line| line.starts_with("espalier:"))
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// A file that cannot be read, is not a recipe (with the line), names no source, or asks for what makes no sense.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let text = std::fs::read_to_string(path).map_err(DatasetError::file("read", path))?;
        let refuse =
            |line: Option<usize>, what: String| DatasetError::Problem(Problem { path: path.to_path_buf(), line, what });
        let recipe: Self = serde_yaml::from_str(&text).map_err(|error| {
            refuse(error.location().map(|place| place.line()), format!("this is not a recipe: {error}"))
        })?;
        recipe.validate().map_err(|what| refuse(None, what))?;
        Ok(recipe)
    }

    fn validate(&self) -> Result<(), String> {
        if self.espalier != 1 {
            return Err(format!("`espalier: {}` is not known; recipes have the form 1", self.espalier));
        }
        if self.sources.is_empty() {
            return Err(
                "the recipe names no sources, so that nothing would be mixed; write them under `sources`".to_owned()
            );
        }
        self.sources.iter().try_for_each(MixSource::validate)?;
        let parts: f64 = self.sources.iter().filter_map(|source| source.part).sum();
        if parts > 0.0 && (parts >= 1.0 || self.sources.iter().all(|source| source.part.is_some())) {
            return Err(format!(
                "the parts make {parts} of the mixture, and nothing says how large it is; leave one source without a `part`, \
                 and all parts together below 1"
            ));
        }
        Ok(())
    }
}

impl MixSource {
    fn validate(&self) -> Result<(), String> {
        let refuse = |what: String| Err(format!("{}: {what}", self.rows.display()));
        let said = [self.lines.is_some(), self.share.is_some(), self.part.is_some()];
        if said.into_iter().filter(|&said| said).count() > 1 {
            return refuse("of `lines`, `share` and `part` one can be said".to_owned());
        }
        let sound = |value: f64| value.is_finite() && value >= 0.0;
        for (name, value) in [("share", self.share), ("part", self.part)] {
            if let Some(value) = value.filter(|&value| !sound(value)) {
                return refuse(format!("`{name}: {value}` is no share; it is zero or more"));
            }
        }
        match self.leaves.iter().find(|(_, share)| !sound(**share)) {
            Some((leaf, share)) => refuse(format!("`{leaf}: {share}` is no share; it is zero or more")),
            None => Ok(()),
        }
    }
}

/// The share of a leaf: that of the longest branch it belongs to.
pub(super) fn leaf_share(branches: &[(String, f64)], leaf: &str) -> Option<f64> {
    let within = |branch: &str| {
        leaf.strip_prefix(branch.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fits = branches.iter().filter(|(branch, _)| within(branch));
    fits.max_by_key(|(branch, _)| branch.len()).map(|(_, share)| *share)
}
