//! Everything to one page, and a Modelfile for the smallest file.

use super::evaluate::{ModelScore, Scores, Side, TaskScores};
use super::quantize::Made;
use crate::content::{hash_file, write_atomically};
use crate::report::{
    ContaminationSection, FileLine, Interval, ItemSection, Page, Point, RowSection, ScoreRow, Series, TaskSection,
    interval_plot, line_plot, render, scatter_plot, series_plot,
};
use crate::reporter::size;
use anyhow::{Context, Result};
use espalier_dataset::read_parquet;
use espalier_eval::contamination::RowHit;
use espalier_eval::items::read_items;
use espalier_eval::{Contamination, NonInferiority, Verdict as Finding};
use espalier_train::metrics::{
    GroupLoss, GroupScore, Groups, LossLine, ValidationLine, read_forgetting, read_losses, read_validations,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Raised when the page would look otherwise.
pub const VERSION: u32 = 7;

/// Configuration of `report`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportStage {
    /// Heading; the run's name otherwise.
    #[serde(default)]
    pub title: Option<String>,
}

/// What the page is made from; what a run has not made is left out.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Name of the run.
    pub name: String,
    /// Rows as Parquet.
    pub rows: Option<PathBuf>,
    /// Name and losses of each training, in the order of the run.
    pub losses: Vec<(String, PathBuf)>,
    /// Folder with `quantize.json` and its files.
    pub quantized: Option<PathBuf>,
    /// `comparisons.json`.
    pub scores: Option<PathBuf>,
    /// `items.parquet`.
    pub items: Option<PathBuf>,
    /// Models and numerics.
    pub facts: Vec<(String, String)>,
    /// What each stage said at its end.
    pub stages: Vec<(String, String)>,
    /// Configuration of each stage.
    pub configuration: Vec<(String, String)>,
}

/// Reads the scores of a run.
pub fn read_scores(path: &Path) -> Result<Scores> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut scores: Scores = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    // The test that can show most is read first.
    scores.tasks.sort_by_key(|task| std::cmp::Reverse(task.items));
    Ok(scores)
}

/// Writes `report.html` and `Modelfile`.
pub fn run(config: &ReportStage, inputs: &Inputs, out: &Path) -> Result<String> {
    let rows = inputs.rows.as_deref().map(read_parquet).transpose()?.unwrap_or_default();
    let scores = inputs.scores.as_deref().map(read_scores).transpose()?.unwrap_or_default();
    let made = inputs.quantized.as_deref().map(read_made).transpose()?;
    let (verdict, gained) = verdict(&scores);
    let serve = made.as_ref().map(serve).unwrap_or_default();
    let page = Page {
        name: config.title.clone().unwrap_or_else(|| inputs.name.clone()),
        verdict,
        gained,
        facts: inputs.facts.clone(),
        stages: inputs.stages.clone(),
        rows: RowSection::of(&rows),
        curves: all_curves(&inputs.losses)?,
        tasks: scores.tasks.iter().map(section).collect(),
        contamination: contamination(&scores.contamination),
        items: ItemSection::of(&inputs.items.as_deref().map(read_items).transpose()?.unwrap_or_default()),
        files: match (&made, &inputs.quantized) {
            (Some(made), Some(folder)) => files(made, folder, &scores)?,
            _ => Vec::new(),
        },
        size_plot: made.as_ref().and_then(|made| size_plot(made, &scores)),
        configuration: inputs.configuration.clone(),
        serve: serve.clone(),
    };
    if let Some((_, modelfile)) = serve.first() {
        write_atomically(&out.join("Modelfile"), modelfile.as_bytes())?;
    }
    write_atomically(&out.join("report.html"), render(&page)?.as_bytes())?;
    Ok("report.html".to_owned())
}

fn read_made(folder: &Path) -> Result<Made> {
    let text = std::fs::read_to_string(folder.join("quantize.json")).context("cannot read quantize.json")?;
    serde_json::from_str(&text).context("quantize.json is damaged")
}

/// The finding of the run in words, and whether some test shows a gain.
pub fn verdict(scores: &Scores) -> (String, bool) {
    let mut lines: Vec<String> = scores.refused.iter().map(|missing| format!("Refused: {missing}")).collect();
    let mut gained = false;
    for task in &scores.tasks {
        for score in &task.scores {
            let Some(comparison) = &score.comparison else { continue };
            match score.side {
                Side::Tuned => {
                    gained |= comparison.verdict == Finding::Better && comparison.intervals.bca.low > 0.0;
                    lines.push(format!("{}: {}", task.leaf, comparison.words()));
                }
                Side::Quantized => lines.push(format!("{}: {}", task.leaf, comparison.non_inferiority_words())),
                Side::Base => {}
            }
        }
    }
    if lines.is_empty() {
        lines.push("Nothing was compared: the graph has no `evaluate` stage with a base and a tuned model.".into());
    }
    (lines.join("\n"), gained)
}

/// What the run's own rows and tests have in common.
fn contamination(found: &Contamination) -> Option<ContaminationSection> {
    let hits = found.found.iter().flat_map(|item| {
        let text = |hit: &RowHit| [item.item.clone(), hit.row.clone(), hit.part.clone(), hit.text.clone()];
        item.hits.iter().map(text)
    });
    (found.rows > 0).then(|| ContaminationSection { words: found.words(), hits: hits.collect() })
}

fn section(task: &TaskScores) -> TaskSection {
    let intervals: Vec<Interval> = task
        .scores
        .iter()
        .map(|score| Interval {
            label: name(score),
            value: score.accuracy,
            low: score.low,
            high: score.high,
            emphasis: score.side != Side::Base,
        })
        .collect();
    TaskSection {
        name: task.leaf.clone(),
        measure: format!("measured by {}", task.metric),
        items: task.items,
        power: format!(
            "So many questions show a difference of {:.1} points or more (with a chance of 80 %).",
            task.detectable * 100.0
        ),
        scores: task.scores.iter().map(score_row).collect(),
        plot: interval_plot(&format!("Scores on {}", task.leaf), &intervals),
    }
}

fn name(score: &ModelScore) -> String {
    if score.shots == 0 { format!("{}, zero-shot", score.label) } else { score.label.clone() }
}

fn score_row(score: &ModelScore) -> ScoreRow {
    let percent = |value: f64| format!("{:.1}", value * 100.0);
    let mut row = ScoreRow {
        label: name(score),
        accuracy: format!("{} % ({} to {})", percent(score.accuracy), percent(score.low), percent(score.high)),
        against: String::new(),
        difference: String::new(),
        p_value: String::new(),
        verdict: String::new(),
    };
    if let Some(clean) = score.clean {
        row.accuracy +=
            &format!("; {} % of the {} items that no training row holds", percent(clean.accuracy), clean.items);
    }
    if let Some(comparison) = &score.comparison {
        let interval = comparison.intervals.bca;
        row.against.clone_from(&comparison.first);
        row.difference = format!(
            "{:+.1} points ({:+.1} to {:+.1})",
            comparison.difference * 100.0,
            interval.low * 100.0,
            interval.high * 100.0
        );
        let p = comparison.p_adjusted;
        row.p_value = if p < 0.0001 { "< 0.0001".into() } else { format!("{p:.4}") };
        if comparison.family > 1 {
            row.p_value += &format!(" (of {}, Holm)", comparison.family);
        }
        row.verdict = if score.side == Side::Quantized {
            non_inferiority(comparison.non_inferiority, comparison.margin)
        } else {
            finding(comparison.verdict)
        };
    }
    row
}

fn finding(verdict: Finding) -> String {
    match verdict {
        Finding::Better => "better",
        Finding::Worse => "worse",
        Finding::NoDifferenceShown => "no difference shown",
    }
    .into()
}

fn non_inferiority(verdict: NonInferiority, margin: f64) -> String {
    match verdict {
        NonInferiority::NonInferior => format!("non-inferior: loses less than {:.1} points", margin * 100.0),
        NonInferiority::Worse => "worse".into(),
        NonInferiority::TooFewQuestions => format!("too few questions to tell within {:.1} points", margin * 100.0),
    }
}

/// The curves of every training; where there are several, each heading says whose it is.
fn all_curves(trainings: &[(String, PathBuf)]) -> Result<Vec<(String, String)>> {
    if let [(_, path)] = trainings {
        return curves(path);
    }
    let mut all = Vec::new();
    for (name, path) in trainings {
        all.extend(curves(path)?.into_iter().map(|(heading, plot)| (format!("{name}: {}", lower(&heading)), plot)));
    }
    Ok(all)
}

fn lower(heading: &str) -> String {
    let mut letters = heading.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The curves of training: the loss, what was found on the way, the loss of each leaf, and what drove it.
fn curves(path: &Path) -> Result<Vec<(String, String)>> {
    let (losses, validations, forgetting) = (read_losses(path)?, read_validations(path)?, read_forgetting(path)?);
    let over_steps = |value: fn(&LossLine) -> f64| -> Vec<(f64, f64)> {
        losses.iter().map(|line| (line.step as f64, value(line))).collect()
    };
    let mut curves = vec![("Training loss", line_plot("Training loss by step", &over_steps(|line| line.loss)))];
    let parts = parts(&losses);
    if !parts.is_empty() {
        curves.push(("Parts of the training loss", series_plot("Loss of the text and divergence by step", &parts)));
    }
    if !validations.is_empty() {
        let loss = held_out(&validations, |line| line.validation_loss, |score| score.loss);
        curves.push(("Loss of held-out rows", series_plot("Validation loss by step", &loss)));
        let accuracy = held_out(&validations, |line| line.accuracy, |score| score.accuracy);
        curves.push(("Share of held-out rows that are right", series_plot("Validation accuracy by step", &accuracy)));
    }
    if !forgetting.is_empty() {
        let points = forgetting.iter().map(|line| (line.step as f64, line.forgetting)).collect();
        let series = [Series { name: "nats a token".into(), points }];
        let plot = series_plot("Divergence from the base by step", &series);
        curves.push(("Forgetting: divergence from the base on general text", plot));
    }
    let leaves = by_name(losses.iter().map(|line| (line.step, &line.leaves)), |group: &GroupLoss| group.loss);
    if leaves.len() > 1 {
        curves.push(("Training loss by leaf", series_plot("Training loss of each leaf by step", &leaves)));
    }
    let one = |name: &str, points| [Series { name: name.into(), points }];
    let rates = one("learning rate", over_steps(|line| line.learning_rate));
    curves.push(("Learning rate", series_plot("Learning rate by step", &rates)));
    let norms = one("norm before clipping", over_steps(|line| line.grad_norm));
    curves.push(("Norm of the gradient", series_plot("Norm of the gradient by step", &norms)));
    Ok(curves.into_iter().map(|(heading, plot)| (heading.to_owned(), plot)).collect())
}

/// A figure of all held-out rows, and of each leaf.
fn held_out(
    validations: &[ValidationLine],
    all: fn(&ValidationLine) -> f64,
    of_group: fn(&GroupScore) -> f64,
) -> Vec<Series> {
    let points = validations.iter().map(|line| (line.step as f64, all(line))).collect();
    let mut series = vec![Series { name: "all held-out rows".into(), points }];
    series.extend(by_name(validations.iter().map(|line| (line.step, &line.leaves)), of_group));
    series
}

/// The two parts of the loss where a teacher's probabilities were learned too.
fn parts(losses: &[LossLine]) -> Vec<Series> {
    let part = |name: &str, value: fn(&LossLine) -> Option<f64>| Series {
        name: name.into(),
        points: losses.iter().filter_map(|line| Some((line.step as f64, value(line)?))).collect(),
    };
    let parts =
        [part("loss of the text", |line| line.nll), part("divergence from the teacher", |line| line.divergence)];
    parts.into_iter().filter(|part| !part.points.is_empty()).collect()
}

fn by_name<'a, T: 'a>(lines: impl Iterator<Item = (usize, &'a Groups<T>)>, figure: fn(&T) -> f64) -> Vec<Series> {
    let mut found: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for (step, groups) in lines {
        for (name, group) in &groups.0 {
            found.entry(name).or_default().push((step as f64, figure(group)));
        }
    }
    found.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect()
}

fn files(made: &Made, folder: &Path, scores: &Scores) -> Result<Vec<FileLine>> {
    made.files
        .iter()
        .map(|file| {
            let mut detail = vec![format!("{:.2} bits a weight", file.bits_per_weight)];
            for task in &scores.tasks {
                if let Some(score) = task.scores.iter().find(|score| score.file.as_deref() == Some(&file.name)) {
                    detail.push(format!("{} {:.1} %", task.leaf, score.accuracy * 100.0));
                }
            }
            detail.extend(file.measured());
            if !file.fallback.is_empty() {
                detail.push(file.fallback.clone());
            }
            Ok(FileLine {
                name: file.name.clone(),
                size: size(file.bytes),
                detail: detail.join("; "),
                sha256: hash_file(&folder.join(&file.name))?,
            })
        })
        .collect()
}

/// Size against the score on the largest test.
fn size_plot(made: &Made, scores: &Scores) -> Option<String> {
    let task = scores.tasks.iter().max_by_key(|task| task.items)?;
    let points: Vec<Point> = made
        .files
        .iter()
        .filter_map(|file| {
            let score = task.scores.iter().find(|score| score.file.as_deref() == Some(&file.name))?;
            Some(Point {
                label: file.file_type.clone(),
                x: file.bytes as f64 / 1e6,
                y: (score.accuracy, score.low, score.high),
            })
        })
        .collect();
    (!points.is_empty()).then(|| scatter_plot(&format!("Size against the score on {}", task.leaf), "MB", &points))
}

/// How to use the smallest file, ready to paste.
fn serve(made: &Made) -> Vec<(String, String)> {
    let Some(smallest) = made.files.iter().min_by_key(|file| file.bytes) else { return Vec::new() };
    vec![
        ("Modelfile".into(), format!("FROM ./{}\nPARAMETER temperature 0\n", smallest.name)),
        ("llama-server".into(), format!("llama-server -m {} --port 8080", smallest.name)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(folder: &Path, name: &str, parts: &str) -> Result<(String, PathBuf)> {
        let path = folder.join(format!("{name}.jsonl"));
        let line = |step| {
            format!(
                "{{\"step\":{step},\"loss\":1.5,{parts}\"learning_rate\":0.1,\"grad_norm\":1.0,\"tokens\":9,\
                 \"target_tokens\":4,\"sources\":{{}},\"leaves\":{{}}}}\n"
            )
        };
        std::fs::write(&path, line(1) + &line(2))?;
        Ok((name.to_owned(), path))
    }

    #[test]
    fn every_training_has_its_curves_and_a_teacher_its_part_of_the_loss() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let first = losses(folder.path(), "knowledge", "")?;
        let second = losses(folder.path(), "skills", "\"nll\":1.0,\"divergence\":0.5,")?;
        let headings = |trainings: &[(String, PathBuf)]| -> Result<Vec<String>> {
            Ok(all_curves(trainings)?.into_iter().map(|(heading, _)| heading).collect())
        };
        let own = ["Training loss", "Learning rate", "Norm of the gradient"];
        assert_eq!(headings(std::slice::from_ref(&first))?, own);
        let all = headings(&[first, second])?;
        let expected = [
            "knowledge: training loss",
            "knowledge: learning rate",
            "knowledge: norm of the gradient",
            "skills: training loss",
            "skills: parts of the training loss",
            "skills: learning rate",
            "skills: norm of the gradient",
        ];
        assert_eq!(all, expected);
        Ok(())
    }
}
