//! What rows must pass beside their checks: rules (those of flows), no item of a benchmark, no twins, nothing said twice.

use super::GenerateStage;
use crate::embedder::Embedder;
use crate::outcome::Interrupted;
use anyhow::Result;
use espalier_dataset::quality::{
    Benchmarks, Bounds, Compared, Known, Language, Meanings, NearDuplicates, RowVectors, Rules, Sample, Seeds, Vectors,
    read_items, reject_near_duplicates,
};
use espalier_dataset::{DatasetError, Row, Verdict, drop_duplicates};
use espalier_sdg::SdgError;
use espalier_taxonomy::{Leaf, LeafKind, Seed};
use std::collections::BTreeMap;

/// Looks at each accepted row once.
pub(super) struct Reviewer<'a> {
    rules: Rules,
    benchmarks: Option<Benchmarks>,
    near: Option<NearDuplicates>,
    said: Option<Said<'a>>,
    /// Of each leaf: how many of its rows were looked at, and its seeds.
    leaves: BTreeMap<String, (usize, Seeds)>,
}

/// Rows by what they say.
struct Said<'a> {
    embedder: Embedder<'a>,
    /// From which cosine on two texts say the same; `None` refuses none.
    threshold: Option<f32>,
    /// What the items of benchmarks ask.
    items: Option<Vectors>,
    kept: Option<Meanings>,
}

impl<'a> Reviewer<'a> {
    pub(super) fn new(config: &GenerateStage, embedder: Option<Embedder<'a>>) -> Result<Self> {
        let near = config.near_duplicates;
        let items = config.decontaminate.iter().map(|file| read_items(file)).collect::<Result<Vec<_>, _>>()?;
        let benchmarks = (!items.is_empty()).then(|| Benchmarks::new(items.concat()));
        let said = embedder.map(|mut embedder| {
            let threshold = embedder.threshold(config.same_meaning).filter(|cosine| *cosine > 0.0);
            let items = benchmarks.as_ref().filter(|_| threshold.is_some()).map(Benchmarks::questions);
            let items = items.map(|items| embedder.vectors(&items)).transpose()?;
            Ok::<_, anyhow::Error>(Said { embedder, threshold, items, kept: threshold.map(Meanings::new) })
        });
        Ok(Self {
            benchmarks,
            rules: Rules::new(config.rules.clone(), Bounds::default()),
            near: (near > 0.0).then(|| NearDuplicates::new(near, Compared::Conversation)),
            said: said.transpose()?,
            leaves: BTreeMap::new(),
        })
    }

    /// What decides the embedder's vectors, where there is one.
    pub(super) fn embedder_identity(&self) -> Option<String> {
        Some(self.said.as_ref()?.embedder.identity().to_owned())
    }

    /// What is to be said of texts that the embedder could not read whole.
    pub(super) fn warning(&self) -> Option<String> {
        self.said.as_ref()?.embedder.warning()
    }

    /// Vectors by which the rows of a leaf are chosen: the embedder's, or those of their words.
    pub(super) fn vectors(&mut self, texts: &[String]) -> Result<Vectors> {
        match &mut self.said {
            Some(said) => said.embedder.vectors(texts),
            None => Ok(Vectors::of_words(texts)),
        }
    }

    /// Refuses accepted rows of a leaf that break a rule or repeat an earlier one.
    pub(super) fn review(&mut self, leaf: &Leaf, rows: &mut [Row]) -> Result<(), SdgError> {
        let (seen, seeds) = self.leaves.entry(leaf.id.clone()).or_insert_with(|| {
            let said: Vec<(String, String)> = leaf.seeds.iter().map(said).collect();
            (0, Seeds::new(said.iter().map(|(asked, answered)| (asked.as_str(), answered.as_str()))))
        });
        let first = *seen;
        *seen = rows.len();
        let new = &mut rows[first..];
        let language = leaf.language.as_deref().and_then(Language::from_name);
        let known =
            Known { language, seeds: Some(seeds), question_mark: leaf.kind == LeafKind::Knowledge, ..Known::default() };
        for row in new.iter_mut().filter(|row| row.verdict == Verdict::Accepted) {
            if let Some(breach) = self.rules.check(&Sample::from(&*row), &known) {
                row.verdict = Verdict::Rejected;
                "rules".clone_into(&mut row.block);
                row.reason = breach.reason();
            }
        }
        self.compare(rows, first)
    }

    /// Refuses accepted rows of a leaf, from the `first` new one on, that hold an item of a benchmark or repeat an earlier row. The
    /// rows are not counted before that, so that another round makes up for them.
    pub(super) fn compare(&mut self, rows: &mut [Row], first: usize) -> Result<(), SdgError> {
        self.decontaminate(&mut rows[first..]);
        drop_duplicates(rows);
        let new = &mut rows[first..];
        if let Some(near) = &mut self.near {
            reject_near_duplicates(new, near)?;
        }
        if let Some(said) = &mut self.said {
            said.reject(self.benchmarks.as_ref(), new).map_err(of_vectors)?;
        }
        Ok(())
    }

    /// Refuses accepted rows in which an item of a benchmark stands.
    fn decontaminate(&self, rows: &mut [Row]) {
        let Some(benchmarks) = &self.benchmarks else { return };
        for row in rows.iter_mut().filter(|row| row.verdict == Verdict::Accepted) {
            if let Some(hit) = benchmarks.hits(&Sample::from(&*row)).first() {
                row.verdict = Verdict::Rejected;
                "benchmarks".clone_into(&mut row.block);
                row.reason = hit.reason();
            }
        }
    }
}

impl Said<'_> {
    /// Refuses accepted rows that ask what an item of a benchmark asks, or say what an earlier row says.
    fn reject(&mut self, benchmarks: Option<&Benchmarks>, rows: &mut [Row]) -> Result<()> {
        let (Some(threshold), Some(kept)) = (self.threshold, &mut self.kept) else { return Ok(()) };
        let embedder = &mut self.embedder;
        if let (Some(items), Some(questions)) = (benchmarks, &self.items) {
            reject(rows, "benchmarks", |samples| {
                let found = items.alike(samples, questions, threshold, |texts| embedder.vectors(texts))?;
                Ok(found.into_iter().map(|alike| alike.map(|alike| alike.reason())).collect())
            })?;
        }
        reject(rows, "meaning", |samples| {
            let vectors = RowVectors::new(samples, Compared::Conversation, |texts| embedder.vectors(texts))?;
            let ids: Vec<&str> = samples.iter().map(|sample| sample.id).collect();
            Ok(kept.add_all(&ids, &vectors).into_iter().map(|same| same.map(|same| same.reason())).collect())
        })
    }
}

/// Refuses accepted rows for which `look` finds a reason.
fn reject(
    rows: &mut [Row],
    block: &str,
    look: impl FnOnce(&[Sample<'_>]) -> Result<Vec<Option<String>>>,
) -> Result<()> {
    let accepted: Vec<usize> = (0..rows.len()).filter(|&index| rows[index].verdict == Verdict::Accepted).collect();
    let reasons = look(&accepted.iter().map(|&index| Sample::from(&rows[index])).collect::<Vec<_>>())?;
    for (index, reason) in accepted.into_iter().zip(reasons) {
        if let Some(reason) = reason {
            rows[index].verdict = Verdict::Rejected;
            block.clone_into(&mut rows[index].block);
            rows[index].reason = reason;
        }
    }
    Ok(())
}

/// What stops a review, as rounds of flows know it.
fn of_vectors(error: anyhow::Error) -> SdgError {
    if error.is::<Interrupted>() {
        return SdgError::Interrupted { done: 0, total: 0 };
    }
    SdgError::Dataset(DatasetError::Vectors(format!("{error:#}")))
}

/// What is asked and what is answered in a seed, its turns parted as those of a [`Sample`] are.
fn said(seed: &Seed) -> (String, String) {
    let joined = |texts: Vec<&str>| texts.join("\n\n");
    (joined(seed.asked().collect()), joined(seed.answered().collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use espalier_dataset::Turn;
    use std::path::Path;

    #[test]
    fn a_question_that_a_round_repeats_does_not_count_for_the_leaf() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/taxonomy/examples/clock"));
        let config = GenerateStage { near_duplicates: 0.0, ..GenerateStage::over(path) };
        let mut reviewer = Reviewer::new(&config, None).unwrap();
        let tree = espalier_taxonomy::read_tree(path).unwrap();
        let row = |question: &str, answer: &str| Row {
            turns: vec![Turn::new("user", question), Turn::new("assistant", answer)],
            verdict: Verdict::Accepted,
            ..Row::default()
        };
        let mut rows = vec![row("When does the gate of the garden open?", "It opens at nine.")];
        reviewer.review(&tree.leaves[0], &mut rows).unwrap();
        rows.push(row("When does the gate of the garden open", "At nine, every day but Monday."));
        rows.push(row("Who keeps the key of the garden?", "The gardener keeps it."));
        reviewer.review(&tree.leaves[0], &mut rows).unwrap();
        let reasons: Vec<&str> = rows.iter().map(|row| row.reason.as_str()).collect();
        assert_eq!(reasons, ["", "duplicate: an earlier row has this question", ""]);
        assert_eq!(rows.iter().filter(|row| row.verdict == Verdict::Accepted).count(), 2);
    }
}
