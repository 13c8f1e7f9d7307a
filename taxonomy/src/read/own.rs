//! Our own form, `espalier: 1`.

use std::path::Path;

use super::Report;
use super::document;
use super::fields::{Blank, Fields, text};
use super::questions;
use super::seeds::{self, Rules, Shape, Twins, count};
use super::skill_kind;
use super::test_items;
use crate::leaf::{Leaf, LeafKind, Place, Verify};
use crate::node::Value;

/// Fewest seed examples.
const MINIMUM: usize = 3;

pub(crate) fn read(fields: &mut Fields, root: &Path, leaf: &mut Leaf, report: &mut Report<'_>) {
    leaf.created_by = fields.required_text("created_by", report).map_or_else(String::new, |(text, _)| text);
    let knowledge = fields.has("domain") || fields.has("document_outline") || fields.has("document");
    let mut shape = Shape::Flat;
    if knowledge {
        leaf.kind = LeafKind::Knowledge;
        shape = Shape::Both;
        leaf.domain = fields.required_text("domain", report).map(|(text, _)| text);
        leaf.document_outline = fields.optional_text("document_outline", report);
        if let Some((key, _)) = fields.take("task_description") {
            report.error(
                key.place,
                "`task_description` is for skills; this leaf has keys of knowledge",
                "remove it, or remove `domain`, `document_outline` and `document`",
            );
        }
        leaf.documents = document::read(fields, root, report);
    } else if let Some((text, _)) = fields.required_text("task_description", report) {
        leaf.task_description = text;
    }
    let rules = Rules {
        minimum: 1,
        twins: Twins::Questions,
        blank: Blank::Refused,
        shape,
        turns: true,
        minimum_pairs: 1,
        tolerant_pairs: false,
    };
    let place = fields.place;
    leaf.seeds = seeds::read(fields, rules, report);
    if !report.failed && leaf.seeds.len() < MINIMUM {
        report.error(
            Place { line: leaf.seeds.first().map_or(place.line, |seed| seed.line), column: 1 },
            format!("{}, and the form asks for {MINIMUM} or more", count(leaf.seeds.len(), "seed example")),
            format!("add {} more under `seed_examples`", MINIMUM - leaf.seeds.len()),
        );
    }
    if !knowledge {
        leaf.kind = skill_kind(&leaf.seeds, report);
    }
    optional_parts(fields, leaf, report);
}

fn optional_parts(fields: &mut Fields, leaf: &mut Leaf, report: &mut Report<'_>) {
    if let Some((key, node)) = fields.take("questions") {
        leaf.questions = questions::template(node, &mut leaf.places, report);
        if leaf.kind != LeafKind::FreeformSkill {
            report.error(
                key.place,
                format!("`questions` is for freeform skills, this leaf is {}", leaf.kind),
                "put what the question needs into the template, and remove the contexts of the seeds",
            );
        }
    }
    if let Some((key, node)) = fields.take("verify") {
        leaf.places.verify = node.place;
        leaf.verify = questions::verify(node, report);
        let computed = leaf.verify.as_ref().and_then(Verify::truth).is_some_and(|truth| truth.parse::<f64>().is_err());
        if computed && leaf.questions.is_none() && !report.failed {
            report.error(
                key.place,
                "this `verify` computes the truth from slots, and this leaf has no `questions`",
                "add `questions: {template, slots}`, or verify by `regex`, `json_schema` or `expression`",
            );
        }
    }
    if let Some((_, node)) = fields.take("samples") {
        match node.value {
            Value::Integer(samples @ 1..=1_000_000) => leaf.samples = Some(samples as usize),
            _ => report.error(
                node.place,
                "`samples` is a whole number from 1 to 1000000",
                "write how many samples the leaf is to give: `samples: 40`",
            ),
        }
    }
    settings(fields, leaf, report);
    if let Some((_, node)) = fields.take("test")
        && let Some((file, items)) = test_items::read(node, &leaf.seeds, report)
    {
        leaf.test_file = Some(file);
        leaf.test = items;
    }
}

/// How the leaf's rows are made and mixed.
fn settings(fields: &mut Fields, leaf: &mut Leaf, report: &mut Report<'_>) {
    if let Some((_, node)) = fields.take("flow")
        && let Some((flow, place)) = text(node, "flow", report)
    {
        leaf.flow = flow_of(&flow, place, report);
    }
    leaf.temperature = number(fields, "temperature", 0.0..=2.0, report);
    leaf.weight = number(fields, "weight", 0.001..=1000.0, report);
    if let Some((_, node)) = fields.take("language")
        && let Some((language, place)) = text(node, "language", report)
    {
        if is_language(&language) {
            leaf.language = Some(language);
        } else {
            report.error(place, format!("{language:?} is not the tag of a language"), "write `en`, `de` or `pt-BR`");
        }
    }
}

/// A name, or a file in the leaf's folder.
fn flow_of(flow: &str, place: Place, report: &mut Report<'_>) -> Option<String> {
    let is_file = Path::new(flow)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml"));
    if !is_file {
        return Some(flow.to_owned());
    }
    let file = report.file().with_file_name(flow);
    if !document::stays_inside(Path::new(flow)) || !file.is_file() {
        report.error(
            place,
            format!("the flow {flow} is not in the folder of its leaf"),
            "put the file there, or write the name of a flow without `.yaml`",
        );
        return None;
    }
    Some(flow.to_owned())
}

fn number(
    fields: &mut Fields,
    name: &'static str,
    range: std::ops::RangeInclusive<f64>,
    report: &mut Report<'_>,
) -> Option<f64> {
    let (_, node) = fields.take(name)?;
    let value = match node.value {
        Value::Integer(value) => value as f64,
        Value::Float(value) => value,
        _ => f64::NAN,
    };
    if range.contains(&value) {
        return Some(value);
    }
    let message = format!("`{name}` is a number from {} to {}", range.start(), range.end());
    report.error(node.place, message, format!("write `{name}: 1`"));
    None
}

/// The form of a BCP 47 tag: a language of two or three letters and parts of up to eight letters and digits.
fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let first = parts.next().unwrap_or_default();
    (2..=3).contains(&first.len())
        && first.bytes().all(|byte| byte.is_ascii_lowercase())
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}
