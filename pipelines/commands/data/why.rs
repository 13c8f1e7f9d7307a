//! `pipeline data why`: where a row comes from, in sentences.

use crate::commands::Session;
use crate::outcome::{Failure, Status};
use anyhow::Result;
use espalier_dataset::{Row, RowSource, Split, Verdict};
use std::path::Path;

/// Letters of a text that are shown.
const SHOWN: usize = 600;

pub(super) fn run(source: &RowSource, path: &Path, id: &str, session: Session<'_>) -> Result<Status> {
    let mut found: Vec<Row> = Vec::new();
    for row in source.rows() {
        let row = row?;
        if row.id == id {
            found = vec![row];
            break;
        }
        if row.id.starts_with(id) {
            found.push(row);
        }
    }
    let row = match found.as_slice() {
        [row] => row,
        [] => {
            return Err(Failure::usage(format!("no row of {} begins with `{id}`", path.display()))
                .hint("ids are shown by `pipeline data show`")
                .into());
        }
        [first, second, ..] => {
            let what = format!("{} rows begin with `{id}`: {}, {} and so on", found.len(), first.id, second.id);
            return Err(Failure::usage(what).hint("write more letters of the id").into());
        }
    };
    for line in story(row) {
        session.reporter.line(line);
    }
    session.reporter.result(serde_json::json!({"row": row}));
    Ok(Status::Done)
}

/// What is known of a row. What a row does not say is left out.
fn story(row: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    let Row { id, leaf, kind, index, .. } = row;
    let split = if row.split == Split::HeldOut { " It is held out for evaluation." } else { "" };
    lines.push(format!("{id} is row {index} of the leaf {leaf} ({kind}).{split}"));
    lines.push(match row.verdict {
        Verdict::Accepted => format!("It was kept: {}.", row.reason.trim_end_matches('.')),
        Verdict::Rejected => format!("It was rejected: {}.", row.reason.trim_end_matches('.')),
    });
    if let Some(weight) = row.leaf_weight.filter(|_| row.is_learned()) {
        lines.push(format!("An epoch of training takes it {weight} times: the weight of its leaf."));
    }
    lines.push(made(row));
    let mut add = |name: &str, text: Option<&str>| {
        lines.extend(text.filter(|text| !text.trim().is_empty()).map(|text| format!("{name}\n{}", indented(text))));
    };
    add("The chunk that it is about:", row.chunk.as_deref());
    let kind = row.context_kind.as_deref().map_or(String::new(), |kind| format!(" ({kind})"));
    add(&format!("What the flow made of the chunk{kind}:"), row.context.as_deref());
    add("Slots of the question:", Some(row.slots.as_str()).filter(|slots| *slots != "{}"));
    for turn in &row.turns {
        add(&format!("{}:", turn.role), Some(&turn.content));
    }
    add("What the teacher thought first:", row.reasoning.as_deref());
    let shown = row.turns.iter().any(|turn| turn.content.trim() == row.answer.trim());
    add("What the teacher wrote:", Some(row.answer.as_str()).filter(|_| !shown));
    let scores: Vec<String> = row.scores.iter().map(|score| format!("{} {}", score.block, score.score)).collect();
    if !scores.is_empty() {
        lines.push(format!("Judges gave: {}.", scores.join(", ")));
    }
    lines.extend(row.verifier.as_ref().map(|found| format!("The checker found: {}.", found.trim_end_matches('.'))));
    let licenses = if row.licenses.is_empty() { row.license.iter().cloned().collect() } else { row.licenses.clone() };
    if !licenses.is_empty() {
        lines.push(format!("It draws on work under {}.", licenses.join(", ")));
    }
    lines
}

/// Who made it, and how.
fn made(row: &Row) -> String {
    let mut text = format!("The flow {}", row.flow);
    if !row.flow_version.is_empty() {
        text.push_str(&format!(" (version {})", row.flow_version));
    }
    text.push_str(" made it");
    if !row.block.is_empty() {
        let verb = if row.verdict == Verdict::Accepted { "wrote" } else { "refused" };
        text.push_str(&format!(", and its block {} {verb} it", row.block));
    }
    if row.model == "none" {
        text.push_str(". No model wrote it.");
    } else {
        text.push_str(&format!(". The teacher was {}, with the seed {}", row.model, row.sampling_seed));
        if !row.parameters.is_empty() {
            text.push_str(&format!(" and {}", row.parameters));
        }
        if row.prompt_tokens > 0 {
            text.push_str(&format!("; {} tokens of prompt, {} of answer", row.prompt_tokens, row.answer_tokens));
        }
        text.push_str(&format!(". Its prompt has the SHA-256 {}", row.prompt_hash));
        match row.seed_ids.as_slice() {
            [] => text.push('.'),
            seeds => text.push_str(&format!(", with the seed examples {} of the leaf.", seeds.join(", "))),
        }
    }
    if let Some(document) = &row.document {
        text.push_str(&format!(" It is about the document {document}"));
        text.push_str(&row.chunk_hash.as_ref().map_or(String::new(), |hash| format!(", chunk {hash}")));
        text.push('.');
    }
    text
}

fn indented(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(SHOWN).collect();
    if shown.len() < text.trim().len() {
        shown.push_str(" ... (the rest with --json)");
    }
    shown.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
