//! The order in which stages run: each after what it needs, otherwise as they stand in the file.

use super::{Place, StageSpec};
use crate::suggestion::closest;

/// A graph that cannot be run: what is wrong, where in the file, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct OrderError {
    /// The entry of `needs` at fault.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Indices of the stages in running order.
pub fn order(stages: &[StageSpec]) -> Result<Vec<usize>, OrderError> {
    let position = |name: &str| stages.iter().position(|stage| stage.name == name);
    for stage in stages {
        if let Some(index) = stage.needs.iter().position(|name| position(name).is_none()) {
            let missing = &stage.needs[index];
            let known: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
            return Err(OrderError {
                place: stage.places.needs.get(index).copied().unwrap_or(stage.places.name),
                message: format!("stage `{}` needs `{missing}`, which is not a stage of this file", stage.name),
                hint: closest(missing, &known).map_or_else(
                    || format!("stages here: {}", known.join(", ")),
                    |close| format!("did you mean `{close}`?"),
                ),
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
            None => return Err(cycle(stages, &sorted)),
        }
    }
    Ok(sorted)
}

/// Walks back along unmet needs until a stage comes again: `train -> generate -> train`.
fn cycle(stages: &[StageSpec], sorted: &[usize]) -> OrderError {
    let unmet = |stage: &StageSpec| {
        stage.needs.iter().enumerate().find_map(|(entry, name)| {
            let next = stages.iter().position(|other| &other.name == name)?;
            (!sorted.contains(&next)).then_some((entry, next))
        })
    };
    let mut path: Vec<usize> = Vec::new();
    let mut current = (0..stages.len()).find(|index| !sorted.contains(index)).unwrap_or_default();
    while !path.contains(&current) {
        path.push(current);
        current = unmet(&stages[current]).map_or(current, |(_, next)| next);
    }
    let first = path.iter().position(|index| *index == current).unwrap_or_default();
    let names: Vec<&str> = path[first..].iter().chain([&current]).map(|index| stages[*index].name.as_str()).collect();
    let stage = &stages[current];
    let entry = unmet(stage).and_then(|(entry, _)| stage.places.needs.get(entry).copied());
    OrderError {
        place: entry.unwrap_or(stage.places.name),
        message: format!("stages wait for each other: {}", names.join(" -> ")),
        hint: "remove one of these from a `needs` list".into(),
    }
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
        let said = |error: OrderError| {
            format!("{}:{}: {}; {}", error.place.line, error.place.column, error.message, error.hint)
        };
        let missing = stages("  generate: {taxonomy: t}\n  train: {needs: [rows]}\n");
        insta::assert_snapshot!(said(order(&missing).unwrap_err()), @"6:19: stage `train` needs `rows`, which is not a stage of this file; stages here: generate, train");
        let close = stages("  generate: {taxonomy: t}\n  train: {needs: [genrate]}\n");
        insta::assert_snapshot!(said(order(&close).unwrap_err()), @"6:19: stage `train` needs `genrate`, which is not a stage of this file; did you mean `generate`?");
        let cycle = stages("  generate: {taxonomy: t, needs: [train]}\n  train:\n    needs: [generate]\n");
        insta::assert_snapshot!(said(order(&cycle).unwrap_err()), @"5:35: stages wait for each other: generate -> train -> generate; remove one of these from a `needs` list");
        let itself = stages("  generate: {taxonomy: t}\n  train: {needs: [generate, train]}\n");
        insta::assert_snapshot!(said(order(&itself).unwrap_err()), @"6:29: stages wait for each other: train -> train; remove one of these from a `needs` list");
    }
}
