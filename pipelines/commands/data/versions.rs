//! `pipeline data versions`: the versions of a data set.

use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::Versions;
use std::path::Path;

pub(super) fn run(folder: &Path, verify: bool, session: Session<'_>) -> Result<Status> {
    let versions = Versions::new(folder);
    let newest = versions.read(None)?;
    let mut found = Vec::new();
    session
        .reporter
        .line(format!("{:>7} {:>10} {:>10} {:>7} {:>7}  tree", "version", "rows", "kept", "leaves", "parts"));
    for number in versions.numbers()? {
        let version = versions.read(Some(number))?;
        let kept: u64 = version.funnel.iter().map(|line| line.accepted).sum();
        let tree: String = version.origin.taxonomy.iter().flat_map(|tree| tree.chars().take(12)).collect();
        session.reporter.line(
            format!(
                "{number:>7} {:>10} {kept:>10} {:>7} {:>7}  {tree}",
                version.rows,
                version.funnel.len(),
                version.parts.len()
            )
            .trim_end(),
        );
        found.push(version);
    }
    if verify {
        versions.verify(&newest)?;
        session.reporter.line(format!("every part of version {} has the hash that it is named by", newest.version));
    }
    session.reporter.result(serde_json::json!({"versions": found}));
    Ok(Status::Done)
}
