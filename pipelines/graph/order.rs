//! The order in which stages run: each after what it needs, otherwise as they stand in the file.

use super::StageSpec;
use thiserror::Error;

/// A graph that cannot be run.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OrderError {
    /// A stage needs one that does not exist.
    #[error("stage `{stage}` needs `{missing}`, which is not a stage of this file\n  hint: stages here: {known}")]
    Missing {
        /// The stage that asks.
        stage: String,
        /// What it asks for.
        missing: String,
        /// The stages that exist.
        known: String,
    },
    /// Stages that wait for each other.
    #[error("stages wait for each other: {0}\n  hint: remove one of these from a `needs` list")]
    Cycle(String),
}

/// Indices of the stages in running order.
pub fn order(stages: &[StageSpec]) -> Result<Vec<usize>, OrderError> {
    let position = |name: &str| stages.iter().position(|stage| stage.name == name);
    for stage in stages {
        if let Some(missing) = stage.needs.iter().find(|name| position(name).is_none()) {
            let known: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
            return Err(OrderError::Missing {
                stage: stage.name.clone(),
                missing: missing.clone(),
                known: known.join(", "),
            });
        }
    }
    let mut sorted: Vec<usize> = Vec::new();
    while sorted.len() < stages.len() {
        let ready = (0..stages.len()).find(|index| {
            !sorted.contains(index)
                && stages[*index].needs.iter().all(|name| position(name).is_some_and(|need| sorted.contains(&need)))
        });
        match ready {
            Some(index) => sorted.push(index),
            None => return Err(OrderError::Cycle(cycle(stages, &sorted))),
        }
    }
    Ok(sorted)
}

/// Walks back along unmet needs until a stage comes again: `train -> generate -> train`.
fn cycle(stages: &[StageSpec], sorted: &[usize]) -> String {
    let unsorted = |name: &String| stages.iter().enumerate().any(|(i, s)| &s.name == name && !sorted.contains(&i));
    let mut path: Vec<&str> = Vec::new();
    let mut current = stages.iter().enumerate().find(|(index, _)| !sorted.contains(index)).map(|(_, stage)| stage);
    while let Some(stage) = current {
        if let Some(start) = path.iter().position(|name| *name == stage.name) {
            path.push(&stage.name);
            return path[start..].join(" -> ");
        }
        path.push(&stage.name);
        current =
            stage.needs.iter().find(|name| unsorted(name)).and_then(|name| stages.iter().find(|s| &s.name == name));
    }
    path.join(" -> ")
}

/// Every stage that `stage` rests on, directly or not, in running order.
pub fn ancestors<'a>(stages: &'a [StageSpec], stage: &StageSpec) -> Vec<&'a StageSpec> {
    let mut wanted = vec![stage.name.as_str()];
    let mut found: Vec<&StageSpec> = Vec::new();
    while let Some(name) = wanted.pop() {
        let Some(current) = stages.iter().find(|candidate| candidate.name == name) else { continue };
        for need in &current.needs {
            if let Some(parent) = stages.iter().find(|candidate| &candidate.name == need)
                && !found.iter().any(|seen| seen.name == parent.name)
            {
                found.push(parent);
                wanted.push(&parent.name);
            }
        }
    }
    found.sort_by_key(|parent| stages.iter().position(|candidate| candidate.name == parent.name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::PipelineFile;

    fn stages(text: &str) -> Vec<StageSpec> {
        PipelineFile::parse("p.yaml".as_ref(), &format!("espalier: 1\nname: t\nstudent: m.gguf\nstages:\n{text}"))
            .map(|file| file.stages)
            .unwrap_or_default()
    }

    #[test]
    fn needs_come_first_and_the_file_order_holds_otherwise() {
        let stages = stages("  report: {needs: [train]}\n  train: {needs: [generate]}\n  generate: {taxonomy: t}\n");
        assert_eq!(order(&stages), Ok(vec![2, 1, 0]));
        let above: Vec<&str> = ancestors(&stages, &stages[0]).iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(above, ["train", "generate"]);
    }

    #[test]
    fn a_missing_need_and_a_cycle_are_named() {
        let missing = stages("  generate: {taxonomy: t}\n  train: {needs: [rows]}\n");
        insta::assert_snapshot!(order(&missing).unwrap_err(), @r"
        stage `train` needs `rows`, which is not a stage of this file
          hint: stages here: generate, train
        ");
        let cycle = stages("  generate: {taxonomy: t, needs: [train]}\n  train: {needs: [generate]}\n");
        insta::assert_snapshot!(order(&cycle).unwrap_err(), @r"
        stages wait for each other: generate -> train -> generate
          hint: remove one of these from a `needs` list
        ");
    }
}
