//! All data of a run: rows to train on, rows that are held out, and general text; and how they are kept apart.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::AtomicBool;

use espalier_model::Model;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::collect::{DataProgress, load};
use crate::config::hex;
use crate::data::{DataSource, Validation};
use crate::tokens::{Sequence, Sequences};
use crate::{TrainConfig, TrainError};

/// The stream of the generator that draws the rows; epochs and sources have others.
const STREAM: u64 = u64::MAX / 2;

/// The files of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSources {
    /// What is learned.
    pub rows: Vec<DataSource>,
    /// Rows that are held out, where they are no share of what is learned.
    pub validation: Vec<DataSource>,
    /// General text on which forgetting is measured.
    pub forgetting: Vec<DataSource>,
}

/// What a run learns from and what it looks at on the way.
#[derive(Clone, Debug, Default)]
pub struct RunData {
    /// Rows to train on.
    pub rows: Sequences,
    /// Rows that are held out, where they are no share of `rows`.
    pub validation: Option<Sequences>,
    /// General text on which forgetting is measured.
    pub general: Option<Sequences>,
}

impl From<Sequences> for RunData {
    fn from(rows: Sequences) -> Self {
        Self { rows, validation: None, general: None }
    }
}

impl RunData {
    /// Reads and encodes all data of a run; see [`load`].
    ///
    /// # Errors
    /// As there; held-out rows or general text of which nothing is left.
    pub fn load(
        model: &Model,
        sources: &RunSources,
        config: &TrainConfig,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(DataProgress),
    ) -> Result<Self, TrainError> {
        let rows = load(model, &sources.rows, config, stop, on_progress)?;
        let mut part = |name: &'static str, sources: &[DataSource]| {
            if sources.is_empty() {
                return Ok(None);
            }
            load(model, sources, config, stop, on_progress).map(Some).map_err(|error| match error {
                TrainError::Empty(why) => TrainError::Config { name, problem: format!("no row is left of it: {why}") },
                other => other,
            })
        };
        Ok(Self {
            rows,
            validation: part("validation", &sources.validation)?,
            general: part("forgetting", &sources.forgetting)?,
        })
    }

    /// What a person should know before the run starts.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.parts().flat_map(|part| &part.warnings)
    }

    /// Tokens of all parts.
    pub(crate) fn tokens(&self) -> usize {
        self.parts().flat_map(|part| &part.rows).map(|row| row.tokens.len()).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &Sequences> {
        [Some(&self.rows), self.validation.as_ref(), self.general.as_ref()].into_iter().flatten()
    }

    /// SHA-256 over all that the run depends on.
    pub(crate) fn hash(&self) -> String {
        if self.validation.is_none() && self.general.is_none() {
            return self.rows.hash();
        }
        let part = |part: &Option<Sequences>| part.as_ref().map_or_else(String::new, Sequences::hash);
        let parts = [self.rows.hash(), part(&self.validation), part(&self.general)];
        hex(&Sha256::digest(parts.join("\n")))
    }
}

/// Rows to train on, and those that are not.
pub(crate) struct Divided<'a> {
    pub(crate) rows: Cow<'a, Sequences>,
    pub(crate) held_out: Cow<'a, Sequences>,
    /// Where rows were left out of training because what they say is held out: how many, and the first.
    pub(crate) repeated: Option<String>,
}

/// Keeps what is held out from what is trained on: the rows that the user gave, or about a share of all lines of the data,
/// drawn by the seed; all rows of a line, the pieces of a long text among them, stay together. Rows with the very tokens of a
/// held-out row, or of the general text, are not trained on.
///
/// # Errors
///
/// Data of which nothing would be left to train on.
pub(crate) fn divide<'a>(data: &'a RunData, config: &TrainConfig) -> Result<Divided<'a>, TrainError> {
    let nothing = || Sequences { rows: Vec::new(), warnings: Vec::new(), ..data.rows.clone() };
    let (rows, held_out) = match (&data.validation, &config.validation) {
        (Some(validation), _) => (Cow::Borrowed(&data.rows), Cow::Borrowed(validation)),
        (None, Validation::Share(share)) if *share > 0.0 => {
            let (rows, held_out) = draw(&data.rows, *share, config.seed)?;
            (Cow::Owned(rows), Cow::Owned(held_out))
        }
        (None, Validation::Rows(items)) if !items.is_empty() => {
            let problem = "the rows that it names were not read".to_owned();
            return Err(TrainError::Config { name: "validation", problem });
        }
        (None, _) => (Cow::Borrowed(&data.rows), Cow::Owned(nothing())),
    };
    let apart = held_out.rows.iter().chain(data.general.iter().flat_map(|general| &general.rows));
    let apart: HashSet<&[u32]> = apart.map(|row| row.tokens.as_slice()).collect();
    let repeats = |row: &&Sequence| apart.contains(row.tokens.as_slice());
    let count = rows.rows.iter().filter(repeats).count();
    let Some(first) = rows.rows.iter().find(repeats) else {
        return Ok(Divided { rows, held_out, repeated: None });
    };
    let which = if count == 1 { "1 row is".to_owned() } else { format!("{count} rows are") };
    let first = rows.place(first);
    if count == rows.rows.len() {
        let why = format!("each of them is held out as well; the first: {first}");
        return Err(TrainError::Empty(why));
    }
    let repeated = format!("{which} not trained on, because a held-out row says the same; the first: {first}");
    let kept = rows.rows.iter().filter(|row| !repeats(row)).cloned().collect();
    let rows = Cow::Owned(Sequences { rows: kept, ..rows.into_owned() });
    Ok(Divided { rows, held_out, repeated: Some(repeated) })
}

/// The rows to train on, and about `share` of all lines.
fn draw(data: &Sequences, share: f64, seed: u64) -> Result<(Sequences, Sequences), TrainError> {
    let with = |rows: Vec<Sequence>| Sequences { rows, warnings: Vec::new(), ..data.clone() };
    let line = |row: &Sequence| (row.file, row.line);
    let mut lines: Vec<_> = data.rows.iter().map(line).collect::<BTreeSet<_>>().into_iter().collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(STREAM);
    lines.shuffle(&mut random);
    let count = ((share * lines.len() as f64).round() as usize).max(1);
    if count >= lines.len() {
        return Err(TrainError::Config {
            name: "validation",
            problem: format!("a share of {share} of {} rows leaves none to train on", lines.len()),
        });
    }
    let held_out: BTreeSet<_> = lines[..count].iter().copied().collect();
    let (apart, rest) = data.rows.iter().cloned().partition(|row| held_out.contains(&line(row)));
    Ok((with(rest), with(apart)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn data(texts: &[&[u32]]) -> Sequences {
        let row = |(line, tokens): (usize, &&[u32])| Sequence {
            tokens: tokens.to_vec(),
            weights: vec![1.0; tokens.len()],
            line: line + 1,
            ..Sequence::default()
        };
        Sequences {
            rows: texts.iter().enumerate().map(row).collect(),
            files: vec!["rows.jsonl".into()],
            ..Sequences::default()
        }
    }

    #[test]
    fn what_is_held_out_is_never_trained_on() {
        let rows = data(&[&[1, 2], &[3, 4], &[5, 6], &[3, 4]]);
        let config = TrainConfig::default();
        let all = RunData::from(rows.clone());
        let divided = divide(&all, &config).unwrap();
        assert!(divided.rows.rows.len() == 4 && divided.held_out.rows.is_empty() && divided.repeated.is_none());

        let given = RunData { validation: Some(data(&[&[3, 4], &[9, 9]])), ..all.clone() };
        let divided = divide(&given, &config).unwrap();
        assert_eq!(divided.rows.rows.iter().map(|row| row.tokens[0]).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(
            divided.repeated.unwrap(),
            "2 rows are not trained on, because a held-out row says the same; the first: rows.jsonl:2"
        );
        let general = RunData { general: Some(data(&[&[5, 6]])), ..all.clone() };
        assert_eq!(divide(&general, &config).unwrap().rows.rows.len(), 3);
        let everything = RunData { validation: Some(rows.clone()), ..all.clone() };
        assert!(divide(&everything, &config).is_err());

        // Whichever line a share draws, its twin is not trained on.
        let seeds = (0..20).map(|seed| TrainConfig { validation: Validation::Share(0.25), seed, ..config.clone() });
        for config in seeds {
            let divided = divide(&all, &config).unwrap();
            let apart = &divided.held_out.rows[0].tokens;
            assert!(divided.rows.rows.iter().all(|row| row.tokens != *apart));
            assert_eq!(divided.repeated.is_some(), apart[0] == 3);
        }
        assert!(given.hash() != all.hash() && given.hash() != general.hash());
    }
}
