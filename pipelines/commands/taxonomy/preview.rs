//! `pipeline taxonomy preview`: what is made of a leaf before a model sees it: its documents as they are read, their chunks,
//! and what its template draws.

use super::{counter, plural};
use crate::cli::PreviewArgs;
use crate::commands::Session;
use crate::outcome::{Failure, Status};
use crate::stages::generate::read_tree;
use anyhow::{Result, anyhow};
use espalier_taxonomy::document::{Limits, extract};
use espalier_taxonomy::{Chunk, ChunkSettings, Document, Leaf, chunks};
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn run(arguments: &PreviewArgs, session: Session<'_>) -> Result<Status> {
    let (count, unit) = counter(arguments.model.as_deref(), session)?;
    let settings =
        ChunkSettings { max_tokens: arguments.chunk_tokens as usize, overlap: arguments.chunk_overlap as usize };
    let cut = |document: &Document| chunks(document, &settings, &*count);
    let preview = Preview { arguments, cut: &cut, count: &*count, unit, session };
    let path = &arguments.path;
    let is_leaf = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if path.is_file() && !is_leaf {
        let shown = preview.file(path)?;
        session.reporter.result(json!({"preview": [{"documents": [shown]}]}));
        return Ok(Status::Done);
    }
    let tree = read_tree(path)?;
    let shown = tree.leaves.iter().map(|leaf| preview.leaf(leaf)).collect::<Result<Vec<Option<Value>>>>()?;
    let shown: Vec<Value> = shown.into_iter().flatten().collect();
    if shown.is_empty() {
        return Err(Failure::usage(format!("no leaf of {} has a document or a question template", path.display()))
            .hint("a leaf of the form `espalier: 1` may hold `document: {path: ...}` or `questions: {template: ..., slots: ...}`")
            .into());
    }
    session.reporter.result(json!({"preview": shown}));
    Ok(Status::Done)
}

struct Preview<'a> {
    arguments: &'a PreviewArgs,
    cut: &'a dyn Fn(&Document) -> Vec<Chunk>,
    count: &'a dyn Fn(&str) -> usize,
    unit: &'static str,
    session: Session<'a>,
}

impl Preview<'_> {
    /// A document that no leaf holds yet.
    fn file(&self, path: &Path) -> Result<Value> {
        let extracted = extract(path, &Limits::default()).map_err(|error| {
            anyhow!(Failure::usage(format!("the document {} {error}", path.display())).hint(error.hint()))
        })?;
        for warning in &extracted.warnings {
            self.session.reporter.line(format!("warning: {}: {warning}", path.display()));
        }
        if let Some(title) = &extracted.title {
            self.session.reporter.line(format!("title: {title}"));
        }
        let mut shown = self.document(&Document { path: path.to_path_buf(), text: extracted.text });
        shown["title"] = json!(extracted.title);
        shown["pages"] = json!(extracted.pages);
        shown["warnings"] = json!(extracted.warnings);
        Ok(shown)
    }

    fn leaf(&self, leaf: &Leaf) -> Result<Option<Value>> {
        if leaf.documents.is_empty() && leaf.questions.is_none() {
            return Ok(None);
        }
        let line = |text: String| self.session.reporter.line(text);
        line(leaf.id.clone());
        let documents: Vec<Value> = leaf.documents.iter().map(|document| self.document(document)).collect();
        let mut questions = Vec::new();
        if let Some(template) = &leaf.questions {
            for index in 0..self.arguments.samples as u64 {
                let drawn = espalier_sdg::draw(leaf, template, self.arguments.seed, index)?;
                let truth = drawn.truth.as_deref().unwrap_or("(no exact truth)");
                line(format!("  {}\n    -> {truth}", drawn.question));
                questions.push(json!({"question": drawn.question, "truth": drawn.truth}));
            }
        }
        Ok(Some(json!({"leaf": leaf.id, "documents": documents, "questions": questions})))
    }

    fn document(&self, document: &Document) -> Value {
        let line = |text: String| self.session.reporter.line(text);
        let found = (self.cut)(document);
        let total = (self.count)(&document.text);
        line(format!("  {}: {total} {}, {}", document.path.display(), self.unit, plural(found.len(), "chunk")));
        if self.arguments.text {
            line(document.text.lines().map(|line| format!("    {line}\n")).collect::<String>());
        }
        let mut shown = Vec::new();
        for (number, chunk) in found.iter().enumerate() {
            let tokens = (self.count)(&chunk.text);
            let heading = if chunk.heading.is_empty() { "(no heading)" } else { &chunk.heading };
            let Chunk { first_line, last_line, .. } = chunk;
            line(format!("  {:>4}  lines {first_line} to {last_line}, {tokens} {}: {heading}", number + 1, self.unit));
            if !self.arguments.text {
                line(format!("        {}", beginning(&chunk.text)));
            }
            shown.push(json!({"heading": chunk.heading, "text": chunk.text, "tokens": tokens, "hash": chunk.hash,
                "first_line": first_line, "last_line": last_line}));
        }
        json!({"path": document.path, "tokens": total, "counted": self.unit, "chunks": shown})
    }
}

/// So much of a text as a line holds.
fn beginning(text: &str) -> String {
    /// Characters.
    const LENGTH: usize = 90;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= LENGTH {
        return words;
    }
    words.chars().take(LENGTH).chain("...".chars()).collect()
}
