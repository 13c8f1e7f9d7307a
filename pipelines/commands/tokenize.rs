//! `pipeline tokenize`.

use super::Session;
use crate::models::resolve;
use crate::outcome::Status;
use anyhow::{Context, Result};
use espalier_model::{Model, SpecialTokens};
use std::io::Read;

/// `pipeline tokenize`.
pub fn run(model: &str, text: Option<String>, special: bool, session: Session<'_>) -> Result<Status> {
    let found = resolve(model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let text = if let Some(text) = text {
        text
    } else {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input is not UTF-8 text")?;
        text
    };
    let ids = model.tokenizer().encode(&text, if special { SpecialTokens::Parse } else { SpecialTokens::AsText });
    session.reporter.line(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    session.reporter.result(serde_json::json!({"ids": ids, "count": ids.len()}));
    Ok(Status::Done)
}
