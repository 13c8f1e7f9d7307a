//! What rows must pass beside their checks: rules (those of flows), no item of a benchmark, no twins.

use super::GenerateStage;
use espalier_dataset::quality::{
    Benchmarks, Bounds, Compared, Known, Language, NearDuplicates, Rules, Sample, Seeds, read_items,
    reject_near_duplicates,
};
use espalier_dataset::{DatasetError, Row, Verdict};
use espalier_sdg::SdgError;
use espalier_taxonomy::{Leaf, LeafKind, Seed};
use std::collections::BTreeMap;

/// Looks at each accepted row once.
pub(super) struct Reviewer {
    rules: Rules,
    benchmarks: Option<Benchmarks>,
    near: Option<NearDuplicates>,
    /// Of each leaf: how many of its rows were looked at, and its seeds.
    leaves: BTreeMap<String, (usize, Seeds)>,
}

impl Reviewer {
    pub(super) fn new(config: &GenerateStage) -> Result<Self, DatasetError> {
        let near = config.near_duplicates;
        let items = config.decontaminate.iter().map(|file| read_items(file)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            benchmarks: (!items.is_empty()).then(|| Benchmarks::new(items.concat())),
            rules: Rules::new(config.rules.clone(), Bounds::default()),
            near: (near > 0.0).then(|| NearDuplicates::new(near, Compared::Conversation)),
            leaves: BTreeMap::new(),
        })
    }

    /// Refuses accepted rows that break a rule or repeat an earlier one.
    pub(super) fn review(&mut self, leaf: &Leaf, rows: &mut [Row]) -> Result<(), SdgError> {
        let (seen, seeds) = self.leaves.entry(leaf.id.clone()).or_insert_with(|| {
            let said: Vec<(String, String)> = leaf.seeds.iter().map(said).collect();
            (0, Seeds::new(said.iter().map(|(asked, answered)| (asked.as_str(), answered.as_str()))))
        });
        let new = &mut rows[*seen..];
        *seen += new.len();
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
        self.decontaminate(new);
        self.reject_twins(new)?;
        Ok(())
    }

    /// Refuses accepted rows that say nearly what an earlier one says.
    pub(super) fn reject_twins(&mut self, rows: &mut [Row]) -> Result<(), DatasetError> {
        if let Some(near) = &mut self.near {
            reject_near_duplicates(rows, near)?;
        }
        Ok(())
    }

    /// Refuses accepted rows in which an item of a benchmark stands.
    pub(super) fn decontaminate(&self, rows: &mut [Row]) {
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

/// What is asked and what is answered in a seed, its turns parted as those of a [`Sample`] are.
fn said(seed: &Seed) -> (String, String) {
    let joined = |texts: Vec<&str>| texts.join("\n\n");
    (joined(seed.asked().collect()), joined(seed.answered().collect()))
}
