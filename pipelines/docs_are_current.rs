//! Holds docs/pipeline-file.md to the configuration that the stages accept: the same keys, in the same order, with the
//! same defaults. Holds docs/rows.md to the columns of rows.

use crate::stages::{EvaluateStage, GenerateStage, QuantizeStage, ReportStage, TeachStage};
use anyhow::{Context, Result};
use espalier_dataset::COLUMNS;
use espalier_train::TrainConfig;
use serde_json::Value;

const PAGE: &str = include_str!("../docs/pipeline-file.md");

/// Keys and defaults of the table below a heading.
fn documented(heading: &str) -> Result<Vec<(String, Value)>> {
    let start = format!("\n## {heading}\n");
    let (_, section) = PAGE.split_once(&start).with_context(|| format!("no section {heading}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let default = if cells[2] == "required" { Value::Null } else { serde_yaml::from_str(cells[2])? };
        Ok((cells[1].to_owned(), default))
    })
    .collect()
}

#[test]
fn the_page_lists_the_keys_and_defaults_of_every_stage() -> Result<()> {
    let accepted = [
        ("generate", serde_json::to_value(GenerateStage::over(""))?),
        ("teach", serde_json::to_value(TeachStage::default())?),
        ("train", serde_json::to_value(TrainConfig::default())?),
        ("quantize", serde_json::to_value(serde_json::from_str::<QuantizeStage>("{}")?)?),
        ("evaluate", serde_json::to_value(serde_json::from_str::<EvaluateStage>("{}")?)?),
        ("report", serde_json::to_value(ReportStage::default())?),
    ];
    for (stage, mut accepted) in accepted {
        let accepted = accepted.as_object_mut().context("a configuration is a mapping")?;
        if stage == "generate" {
            accepted.insert("taxonomy".into(), Value::Null);
        }
        let documented = documented(stage)?;
        let keys: Vec<&String> = documented.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, accepted.keys().collect::<Vec<_>>(), "keys of {stage}");
        for (key, default) in &documented {
            // A value of f32 has more digits in JSON than a person writes.
            let equal = match (default.as_f64(), accepted[key].as_f64()) {
                (Some(one), Some(other)) => (one as f32).to_bits() == (other as f32).to_bits(),
                _ => *default == accepted[key],
            };
            assert!(equal, "{stage}.{key}: the page says {default}, the code {}", accepted[key]);
        }
    }
    Ok(())
}

#[test]
fn the_page_of_rows_lists_the_columns() -> Result<()> {
    const ROWS: &str = include_str!("../docs/rows.md");
    let (_, section) = ROWS.split_once("\n## Columns\n").context("no section of columns")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let documented: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').splitn(3, '|').map(str::trim).collect())
        .collect();
    let known: Vec<Vec<String>> = COLUMNS
        .iter()
        .map(|column| vec![format!("`{}`", column.name), column.type_words().to_owned(), column.meaning.to_owned()])
        .collect();
    assert_eq!(documented, known);
    Ok(())
}
