//! `pipeline data diff`: what differs between two states of rows.

use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_dataset::{Change, RowSource, Versions, difference};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn run(
    before: &Path,
    after: Option<&Path>,
    [from, to]: [Option<u32>; 2],
    limit: usize,
    session: Session<'_>,
) -> Result<Status> {
    let sources = if let Some(after) = after {
        [RowSource::find(before, from)?, RowSource::find(after, to)?]
    } else {
        versions(before, from, to)?
    };
    let found = difference(&sources[0], &sources[1])?;
    session.reporter.line(format!(
        "{} rows added, {} removed, {} changed, {} the same",
        found.added.len(),
        found.removed.len(),
        found.changed.len(),
        found.same
    ));
    let mut leaves: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (place, changes) in [&found.added, &found.removed, &found.changed].into_iter().enumerate() {
        for change in changes {
            leaves.entry(&change.leaf).or_default()[place] += 1;
        }
    }
    if !leaves.is_empty() {
        session.reporter.line(format!("\n{:44} {:>8} {:>8} {:>8}", "leaf", "added", "removed", "changed"));
    }
    for (leaf, [added, removed, changed]) in leaves {
        session.reporter.line(format!("{leaf:44} {added:>8} {removed:>8} {changed:>8}"));
    }
    let show = |mark: &str, changes: &[Change]| {
        for change in changes.iter().take(limit) {
            let fields = change.fields.join(", ");
            session.reporter.line(format!("{mark} {}  {}  {fields}", change.id, change.leaf).trim_end());
        }
        if changes.len() > limit {
            session.reporter.line(format!("{mark} and {} more; see --limit", changes.len() - limit));
        }
    };
    for (mark, changes) in [("+", &found.added), ("-", &found.removed), ("~", &found.changed)] {
        show(mark, changes);
    }
    session.reporter.result(serde_json::json!({"diff": found}));
    Ok(Status::Done)
}

/// Two versions of a data set: without numbers, the newest and the one before it.
fn versions(folder: &Path, from: Option<u32>, to: Option<u32>) -> Result<[RowSource; 2]> {
    if !Versions::exist(folder) {
        return Err(Failure::usage(format!("{} is compared with nothing", folder.display()))
            .hint("name a second table, or a data set with versions and --from")
            .into());
    }
    let newest = RowSource::find(folder, to)?;
    let number = newest.version().map_or(1, |version| version.version);
    Ok([RowSource::find(folder, Some(from.unwrap_or(number.saturating_sub(1).max(1))))?, newest])
}
