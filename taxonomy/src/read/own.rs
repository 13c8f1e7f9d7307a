//! Our own form, `espalier: 1`.

use super::Report;
use super::document;
use super::fields::Blank;
use super::fields::Fields;
use super::questions;
use super::seeds::{self, Rules, Shape, Twins, count};
use super::skill_kind;
use super::test_items;
use crate::leaf::{Leaf, LeafKind, Place, Verify};
use crate::node::Value;

/// Fewest seed examples.
const MINIMUM: usize = 3;

pub(crate) fn read(fields: &mut Fields, leaf: &mut Leaf, report: &mut Report<'_>) {
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
        leaf.documents = document::read(fields, report);
    } else if let Some((text, _)) = fields.required_text("task_description", report) {
        leaf.task_description = text;
    }
    let rules = Rules {
        minimum: 1,
        twins: Twins::Questions,
        blank: Blank::Refused,
        shape,
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
        if matches!(leaf.verify, Some(Verify::Exact { .. })) && leaf.questions.is_none() && !report.failed {
            report.error(
                key.place,
                "`verify: {exact: ...}` computes the truth from slots, and this leaf has no `questions`",
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
    if let Some((_, node)) = fields.take("test")
        && let Some((file, items)) = test_items::read(node, &leaf.seeds, report)
    {
        leaf.test_file = Some(file);
        leaf.test = items;
    }
}
