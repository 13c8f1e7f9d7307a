//! `pipeline perplexity`: windows and scored halves as llama-perplexity has them, and divergence from a reference.

use super::Session;
use super::chat::open_engine;
use crate::outcome::{Interrupted, Status};
use crate::stages::StageContext;
use anyhow::{Context, Result};
use espalier_eval::EvalError;
use espalier_eval::perplexity::{WINDOW, perplexity};
use espalier_model::SpecialTokens;
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
    let context = StageContext {
        stage: "perplexity",
        reporter: session.reporter,
        stop: session.stop,
        precision: session.precision,
    };
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
        let ids = engine.tokenizer().encode(&content, SpecialTokens::AsText);
        let windows: Vec<Vec<u32>> =
            ids.chunks_exact(WINDOW).take(chunks.unwrap_or(usize::MAX)).map(<[u32]>::to_vec).collect();
        let divergence = espalier_quantize::divergence(&other, &engine, &windows)?;
        session.reporter.line(format!(
            "against {reference}: mean divergence {:.6}, median {:.6}, 99.9 % {:.6}, same top token {:.2} %, perplexity ratio {:.5}",
            divergence.mean_kld, divergence.median, divergence.p99_9, divergence.same_top * 100.0, divergence.perplexity_ratio
        ));
        json["divergence"] = serde_json::to_value(divergence)?;
    }
    session.reporter.result(json);
    Ok(Status::Done)
}
