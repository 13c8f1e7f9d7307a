//! `pipeline data clean`: rows without near-duplicates, faults, personal data and items of benchmarks.

use crate::cli::CleanArguments;
use crate::commands::Session;
use crate::content::write_atomically;
use crate::embedder::Embedder;
use crate::events::Event;
use crate::models::resolve;
use crate::outcome::{Failure, Interrupted, Status};
use anyhow::Result;
use espalier_dataset::DatasetError;
use espalier_dataset::quality::{
    Benchmarks, Bounds, Cleaning, CleaningReport, Deduplication, Meaning, Outputs, Rule, Rules, clean, read_items,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

/// The similarity of near-duplicates where nothing else is said.
const SIMILARITY: f64 = 0.8;

/// `pipeline data clean`.
pub(super) fn run(arguments: &CleanArguments, session: Session<'_>) -> Result<Status> {
    refuse_same_files(arguments)?;
    let cleaning = cleaning(arguments)?;
    let mut embedder = embedder(arguments, session)?;
    let table = arguments.input.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"));
    let unit = if table { "rows" } else { "bytes" };
    let mut progress = |done, total| {
        let (stage, part) = ("clean".to_owned(), "rows".to_owned());
        session.reporter.send(&Event::Progress { stage, part, done, total, unit: unit.into(), detail: String::new() });
        if session.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let written = |path: &'_ Option<std::path::PathBuf>| path.clone().filter(|_| !arguments.dry_run);
    let (cleaned, rejected) = (written(&arguments.output), written(&arguments.rejected));
    let outputs = Outputs { cleaned: cleaned.as_deref(), rejected: rejected.as_deref() };
    let cleaned_rows = match &mut embedder {
        None => clean(&arguments.input, outputs, &cleaning, None, &mut progress),
        Some((embedder, threshold)) => {
            let embed = &mut |texts: &[String]| {
                embedder.vectors(texts).map_err(|error| DatasetError::Vectors(format!("{error:#}")))
            };
            let meaning = Meaning { threshold: *threshold, compared: arguments.compare.into(), embed };
            clean(&arguments.input, outputs, &cleaning, Some(meaning), &mut progress)
        }
    };
    let report = match cleaned_rows {
        // No vectors, because somebody asked to stop.
        Err(DatasetError::Vectors(_)) if session.stop.load(Ordering::Relaxed) => return Err(Interrupted.into()),
        cleaned_rows => cleaned_rows?.ok_or(Interrupted)?,
    };
    if let Some(message) = embedder.as_ref().and_then(|(embedder, _)| embedder.warning()) {
        session.reporter.send(&Event::Warning { stage: "clean".into(), message });
    }
    if let Some(path) = &arguments.report {
        write_atomically(path, &serde_json::to_vec_pretty(&report)?)?;
    }
    show(&report, cleaned.as_deref(), session);
    session.reporter.result(serde_json::json!({"cleaned": report, "dry_run": arguments.dry_run}));
    Ok(Status::Done)
}

/// The embedder and the cosine from which two texts say the same.
fn embedder<'a>(arguments: &CleanArguments, session: Session<'a>) -> Result<Option<(Embedder<'a>, f32)>> {
    let Some(reference) = &arguments.embedder else { return Ok(None) };
    let model = resolve(reference, session.reporter, session.stop)?;
    let embedder = Embedder::load(&model, &session.engine_options(), session.stop)?;
    let threshold = embedder.required_threshold(arguments.same_meaning)?;
    Ok(Some((embedder, threshold)))
}

/// Without a check named, near-duplicates and all rules.
fn cleaning(arguments: &CleanArguments) -> Result<Cleaning> {
    let near = arguments.minhash.is_some() || arguments.index.is_some() || !arguments.against.is_empty();
    let rules = arguments.rules.is_some() || arguments.language.is_some();
    let named =
        near || rules || arguments.mask_pii || !arguments.decontaminate.is_empty() || arguments.embedder.is_some();
    let wanted = match &arguments.rules {
        Some(list) => Some(list.0.clone()),
        None if !named => Some(Rule::ALL.to_vec()),
        None if arguments.language.is_some() => Some(vec![Rule::Language]),
        None => None,
    };
    let mut items = Vec::new();
    for path in &arguments.decontaminate {
        items.extend(read_items(path)?);
    }
    Ok(Cleaning {
        mask: arguments.mask_pii,
        rules: wanted.map(|rules| Rules::new(rules, Bounds::default())),
        language: arguments.language,
        benchmarks: (!items.is_empty()).then(|| Benchmarks::new(items)),
        deduplication: (near || !named).then(|| Deduplication {
            threshold: arguments.minhash.unwrap_or(SIMILARITY),
            compared: arguments.compare.into(),
            against: arguments.against.clone(),
            index: arguments.index.clone(),
        }),
    })
}

fn refuse_same_files(arguments: &CleanArguments) -> Result<()> {
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    let input = place(&arguments.input);
    let outputs =
        [("--output", &arguments.output), ("--rejected", &arguments.rejected), ("--report", &arguments.report)];
    for (name, output) in outputs {
        if input.is_some() && output.as_deref().and_then(place) == input {
            return Err(Failure::usage(format!("{name} is the input itself, {}", arguments.input.display()))
                .hint("name another file: the rows that are rejected would be lost")
                .into());
        }
    }
    Ok(())
}

fn show(report: &CleaningReport, cleaned: Option<&Path>, session: Session<'_>) {
    let CleaningReport { rows, kept, rejected_before, .. } = report;
    let rejected: u64 = report.rejected_by.iter().map(|(_, count)| count).sum();
    session.reporter.line(format!("{rows} rows: {kept} kept, {rejected} rejected"));
    if *rejected_before > 0 {
        session.reporter.line(format!("{rejected_before:>8}  rejected before"));
    }
    for (reason, count) in &report.rejected_by {
        session.reporter.line(format!("{count:>8}  {reason}"));
    }
    if report.masked_rows > 0 {
        let kinds: Vec<String> = report.masked.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        session.reporter.line(format!("{:>8}  masked: {}", report.masked_rows, kinds.join(", ")));
    }
    for (benchmark, count) in &report.contaminated_by {
        session.reporter.line(format!("{count:>8}  with an item of {benchmark}"));
    }
    if let Some(path) = cleaned {
        session.reporter.closing(format!("written to {}", path.display()));
    }
}
