//! `pipeline data stats`: counts and lengths, of all rows and by leaf.

use super::filter::Filter;
use crate::commands::Session;
use crate::outcome::Status;
use anyhow::Result;
use espalier_dataset::{Lengths, RowSource, Statistics};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bars of the histogram.
const CLASSES: u64 = 12;
/// Letters of the longest bar.
const WIDTH: u64 = 40;

pub(super) fn run(source: &RowSource, filter: &Filter, session: Session<'_>) -> Result<Status> {
    let mut all = Statistics::default();
    let mut leaves: BTreeMap<String, Statistics> = BTreeMap::new();
    for row in filter.rows(source) {
        let row = row?;
        all.add(&row);
        leaves.entry(row.leaf.clone()).or_default().add(&row);
    }
    let line = |text: String| session.reporter.line(text);
    let share = |part: u64| if all.rows == 0 { 0.0 } else { part as f64 / all.rows as f64 * 100.0 };
    line(format!(
        "{} rows of {} leaves: {} kept ({:.0} %), {} rejected; {} held out for evaluation",
        all.rows,
        leaves.len(),
        all.accepted,
        share(all.accepted),
        all.rows - all.accepted,
        all.held_out
    ));
    line(String::new());
    line(format!("{:20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "least", "10 %", "half", "90 %", "most", "mean"));
    for (what, lengths) in all.lengths() {
        if let Some(of) = lengths.summary() {
            line(format!(
                "{what:20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8.1}",
                of.least, of.tenth, of.median, of.nine_tenths, of.most, of.mean
            ));
        }
    }
    let (what, lengths) = answers(&all);
    if lengths.total() > 0 {
        line(String::new());
        line(what.to_owned());
        bars(lengths).into_iter().for_each(line);
    }
    line(String::new());
    // Where no leaf has a weight, an epoch is the rows that were kept for training.
    let weighed = leaves.values().any(Statistics::is_weighed);
    let epoch = |words: String| if weighed { format!(" {words:>8}") } else { String::new() };
    let heading = epoch("an epoch".to_owned());
    line(format!("{:44} {:>8} {:>8} {:>8}{heading} {:>15}", "leaf", "written", "kept", "held out", "half of answers"));
    for (leaf, of) in &leaves {
        let half = answers(of).1.quantile(0.5).map_or_else(String::new, |half| half.to_string());
        let epoch = epoch(format!("{:.1}", of.an_epoch));
        line(format!("{leaf:44} {:>8} {:>8} {:>8}{epoch} {half:>15}", of.rows, of.accepted, of.held_out));
    }
    let by_leaf: serde_json::Map<String, Value> = leaves.iter().map(|(leaf, of)| (leaf.clone(), figures(of))).collect();
    session.reporter.result(json!({"all": figures(&all), "leaves": by_leaf}));
    Ok(Status::Done)
}

/// The length of answers: in tokens, where the engine counted them.
fn answers(of: &Statistics) -> (&'static str, &Lengths) {
    let [_, letters, _, tokens] = of.lengths();
    if tokens.1.total() > 0 { tokens } else { letters }
}

fn bars(lengths: &Lengths) -> Vec<String> {
    let classes = lengths.histogram(CLASSES);
    let most = classes.iter().map(|class| class.1).max().unwrap_or(1).max(1);
    // A class that is not empty has a mark.
    let bar = |count: u64| "#".repeat((count * WIDTH).div_ceil(most) as usize);
    classes
        .into_iter()
        .map(|(from, count)| format!("{from:>8}  {:WIDTH$} {count}", bar(count), WIDTH = WIDTH as usize))
        .collect()
}

fn figures(of: &Statistics) -> Value {
    let mut figures =
        json!({"rows": of.rows, "accepted": of.accepted, "held_out": of.held_out, "an_epoch": of.an_epoch});
    for (what, lengths) in of.lengths() {
        figures[what.replace(", ", "_")] = json!(lengths.summary());
    }
    figures
}
