//! `pipeline adapter show`: what an adapter is, how much it changes each layer, and whether it fits a model.

use super::Session;
use crate::models::resolve;
use crate::outcome::Status;
use crate::reporter::size;
use anyhow::{Context, Result};
use espalier_model::{LoraAdapter, Model};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Rows of the table: layers are put together beyond that.
const LAYER_RANGES: usize = 8;

/// Linear layers of a block in the order of its computation.
const TARGETS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// The result object.
#[derive(Debug, Serialize)]
struct Shown {
    kind: &'static str,
    rank: usize,
    alpha: f32,
    scale: f32,
    targets: Vec<String>,
    layers: Vec<usize>,
    parameters: usize,
    bytes: u64,
    base_model: String,
    base_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fit: Option<Fit>,
    modules: Vec<ShownModule>,
}

/// How the adapter and a model go together.
#[derive(Debug, Serialize)]
struct Fit {
    model: String,
    fits: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Whether the model is the very file that the adapter was trained on, where the adapter says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    same_file: Option<bool>,
}

#[derive(Debug, Serialize)]
struct ShownModule {
    name: String,
    inputs: usize,
    outputs: usize,
    rank: usize,
    alpha: f32,
    scale: f32,
    /// Frobenius norm of `s B A`.
    norm: f64,
}

/// Shows an adapter; with a model also whether it fits, and exit code 3 where it does not.
pub fn run(path: &Path, model: Option<&str>, session: Session<'_>) -> Result<Status> {
    let adapter = LoraAdapter::load_without_model(path)?;
    let fit = model.map(|model| fit(path, model, &adapter, session)).transpose()?;
    let shown = describe(&adapter, bytes_of(path)?, fit);
    session.reporter.line(text(&shown).trim_end());
    let refused = shown.fit.as_ref().is_some_and(|fit| !fit.fits);
    session.reporter.result(serde_json::to_value(&shown)?);
    Ok(if refused { Status::Refused } else { Status::Done })
}

fn fit(path: &Path, model: &str, adapter: &LoraAdapter, session: Session<'_>) -> Result<Fit> {
    let found = resolve(model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let name = model.config().name.clone();
    let problem = LoraAdapter::load(path, model.config()).err().map(|error| error.to_string());
    let same_file = adapter.base_sha256.as_ref().map(|hash| Ok::<_, anyhow::Error>(*hash == model.sha256()?));
    Ok(Fit { model: name, fits: problem.is_none(), problem, same_file: same_file.transpose()? })
}

/// Bytes of the file, or of the files of the folder.
fn bytes_of(path: &Path) -> Result<u64> {
    let size = |path: &Path| Ok::<_, std::io::Error>(fs::metadata(path)?.len());
    if !path.is_dir() {
        return size(path).with_context(|| format!("cannot read the size of {}", path.display()));
    }
    let files = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    let files = files.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    files.map(|path| size(&path)).sum::<Result<u64, _>>().with_context(|| format!("cannot list {}", path.display()))
}

/// `blk.3.ffn_up` to 3 and `ffn_up`.
fn layer_and_target(module: &str) -> Option<(usize, &str)> {
    let (layer, target) = module.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, target))
}

fn describe(adapter: &LoraAdapter, bytes: u64, fit: Option<Fit>) -> Shown {
    let places = || adapter.modules.keys().filter_map(|name| layer_and_target(name));
    let present: BTreeSet<&str> = places().map(|(_, target)| target).collect();
    let (rank, alpha) = adapter.usual_rank_and_alpha();
    let modules: Vec<ShownModule> = adapter
        .modules
        .iter()
        .map(|(name, module)| ShownModule {
            name: name.clone(),
            inputs: module.inputs,
            outputs: module.outputs,
            rank: module.rank,
            alpha: module.alpha,
            scale: adapter.scale(module),
            norm: module.update_norm(adapter.scale(module)),
        })
        .collect();
    Shown {
        kind: match (adapter.is_dora(), adapter.rslora) {
            (false, false) => "LoRA",
            (false, true) => "rsLoRA",
            (true, false) => "DoRA",
            (true, true) => "rank-stabilised DoRA",
        },
        rank,
        alpha,
        scale: alpha / if adapter.rslora { (rank as f32).sqrt() } else { rank as f32 },
        targets: TARGETS.into_iter().filter(|target| present.contains(target)).map(str::to_owned).collect(),
        layers: places().map(|(layer, _)| layer).collect::<BTreeSet<_>>().into_iter().collect(),
        parameters: adapter
            .modules
            .values()
            .map(|module| module.a.len() + module.b.len() + module.magnitude.as_ref().map_or(0, Vec::len))
            .sum(),
        bytes,
        base_model: adapter.base_model.clone(),
        base_sha256: adapter.base_sha256.clone(),
        fit,
        modules,
    }
}

fn text(shown: &Shown) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:11} {value}");
    };
    let usual = |module: &&ShownModule| module.rank == shown.rank && module.alpha.to_bits() == shown.alpha.to_bits();
    let others = shown.modules.iter().filter(|module| !usual(module)).count();
    let others =
        if others > 0 { format!(" ({others} of {} modules have others)", shown.modules.len()) } else { String::new() };
    row("kind", shown.kind.to_owned());
    row("rank", format!("{}, alpha {}, scale {}{others}", shown.rank, shown.alpha, shown.scale));
    row("targets", shown.targets.join(", "));
    row("layers", ranges(&shown.layers));
    row("parameters", format!("{}, {} on the disk", count(shown.parameters), size(shown.bytes)));
    let base = if shown.base_model.is_empty() { "not stated" } else { &shown.base_model };
    let hash = shown.base_sha256.as_ref().map_or_else(String::new, |hash| format!(", sha256 {hash}"));
    row("base", format!("{base}{hash}"));
    if let Some(fit) = &shown.fit {
        let words = match (&fit.problem, fit.same_file) {
            (Some(problem), _) => format!("no: {problem}"),
            (None, Some(true)) => format!("yes: {} is the file that it was trained on", fit.model),
            (None, Some(false)) => format!("{} by its shapes, but it was trained on another file", fit.model),
            (None, None) => format!("{} by its shapes", fit.model),
        };
        row("fits", words);
    }
    text.push_str("\nnorm of s B A, the largest in each range of layers\n");
    text.push_str(&table(shown));
    text
}

fn count(parameters: usize) -> String {
    let parameters = parameters as f64;
    if parameters < 1e6 { format!("{:.1} k", parameters / 1e3) } else { format!("{:.1} M", parameters / 1e6) }
}

/// `0-3, 7`.
fn ranges(layers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &layer in layers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == layer => *last = layer,
            _ => parts.push((layer, layer)),
        }
    }
    let part =
        |&(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn table(shown: &Shown) -> String {
    let most = shown.layers.last().map_or(0, |last| last + 1);
    let step = most.div_ceil(LAYER_RANGES).max(1);
    let mut largest: BTreeMap<(usize, &str), f64> = BTreeMap::new();
    for module in &shown.modules {
        if let Some((layer, target)) = layer_and_target(&module.name) {
            let entry = largest.entry((layer / step, target)).or_default();
            *entry = entry.max(module.norm);
        }
    }
    let mut text = format!("{:>9}", "layers");
    for target in &shown.targets {
        let _ = write!(text, "  {target:>11}");
    }
    text.push('\n');
    for range in 0..most.div_ceil(step) {
        let layers: Vec<usize> = (range * step..((range + 1) * step).min(most)).collect();
        let _ = write!(text, "{:>9}", ranges(&layers));
        for target in &shown.targets {
            match largest.get(&(range, target.as_str())) {
                Some(norm) => write!(text, "  {norm:>11.4}"),
                None => write!(text, "  {:>11}", "-"),
            }
            .unwrap_or_default();
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[]), "");
        assert_eq!(layer_and_target("blk.12.ffn_up"), Some((12, "ffn_up")));
        assert_eq!(layer_and_target("output"), None);
    }
}
