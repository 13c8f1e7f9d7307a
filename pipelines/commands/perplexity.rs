//! `pipeline perplexity`: windows and scored halves as llama-perplexity has them, and divergence from a reference.

use super::Session;
use super::chat::open_engine;
use super::compare::figure;
use crate::outcome::{Interrupted, Status};
use anyhow::{Context, Result};
use espalier_eval::EvalError;
use espalier_eval::perplexity::{WINDOW, perplexity};
use espalier_quantize::{MeasuredText, QuantizeError, divergence};
use std::ops::ControlFlow;
use std::path::Path;

/// `pipeline perplexity`.
pub fn run(
    model: &str,
    adapter: Option<&Path>,
    text: &Path,
    reference: Option<&str>,
    chunks: Option<usize>,
    session: Session<'_>,
) -> Result<Status> {
    let content =
        std::fs::read_to_string(text).with_context(|| format!("cannot read {} as UTF-8 text", text.display()))?;
    let engine = open_engine(model, adapter, session)?;
    let context = session.stage("perplexity");
    let found = perplexity(&engine, &content, WINDOW, chunks, &mut |done, total| {
        context.progress("", done as u64, total as u64, "windows", "");
        if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let found = match found {
        Err(EvalError::Interrupted { .. }) => return Err(Interrupted.into()),
        found => found?,
    };
    session.reporter.line(format!(
        "perplexity {:.4} +/- {:.4}, {:.4} bits a byte, {} tokens in {} windows",
        found.perplexity, found.standard_error, found.bits_per_byte, found.tokens, found.windows
    ));
    let mut json = serde_json::json!({
        "perplexity": found.perplexity, "mean_nll": found.mean_nll, "tokens": found.tokens, "windows": found.windows,
        "standard_error": found.standard_error, "bits_per_byte": found.bits_per_byte,
    });
    if let Some(reference) = reference {
        let other = open_engine(reference, None, session)?;
        let mut windows = MeasuredText::windows(&engine, &content, WINDOW);
        windows.truncate(chunks.unwrap_or(usize::MAX));
        let total = windows.len() as u64;
        let divergence = divergence(&other, &engine, &windows, &mut |done| {
            context.progress("divergence", done as u64, total, "windows", "");
            if context.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let divergence = match divergence {
            Err(QuantizeError::Interrupted) => return Err(Interrupted.into()),
            divergence => divergence?,
        };
        session.reporter.line(format!(
            "against {reference}: mean divergence {}, median {}, 99.9 % {}, same top token {:.2} %, perplexity ratio {}",
            figure(divergence.mean_kld, 6),
            figure(divergence.median, 6),
            figure(divergence.p99_9, 6),
            divergence.same_top.value * 100.0,
            figure(divergence.perplexity_ratio, 5)
        ));
        json["divergence"] = serde_json::to_value(divergence)?;
    }
    session.reporter.result(json);
    Ok(Status::Done)
}
