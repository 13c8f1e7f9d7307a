//! Versions 1, 2 and 3 of `InstructLab`'s form, as strict as its schemas.
//!
//! Seed examples: at least 1 in version 1, at least 5 and no two alike in versions 2 and 3. Knowledge is read in version 3
//! alone: earlier forms of it are deprecated there and refused by its own generator. A text may be blank but not empty, as the
//! schemas count characters; only `task_description` of version 1 may be empty.

use std::fs;

use super::Report;
use super::document;
use super::fields::{Blank, Fields};
use super::seeds::{self, Rules, Shape, Twins};
use super::skill_kind;
use crate::leaf::{Document, Leaf, LeafKind, LeafVersion};

pub(crate) fn read(fields: &mut Fields, leaf: &mut Leaf, report: &mut Report<'_>) {
    if is_knowledge(fields, leaf) {
        knowledge(fields, leaf, report);
    } else {
        skill(fields, leaf, report);
    }
}

/// By the innermost folder of one of the two known names, else by keys that only knowledge has. (Elsewhere the other reader
/// looks for `document` alone; a leaf that has the other two and not this one is refused by both.)
fn is_knowledge(fields: &Fields, leaf: &Leaf) -> bool {
    // A relative path may begin inside such a folder.
    let folder = leaf.file.parent().map(|folder| fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf()));
    for folder in folder.iter().flat_map(|folder| folder.components().rev()) {
        match folder.as_os_str().to_str() {
            Some("knowledge") => return true,
            Some("compositional_skills") => return false,
            _ => {}
        }
    }
    ["domain", "document", "document_outline"].iter().any(|key| fields.has(key))
}

fn rules(version: LeafVersion, shape: Shape) -> Rules {
    let (minimum, twins) = if version == LeafVersion::V1 { (1, Twins::Suffered) } else { (5, Twins::Items) };
    Rules { minimum, twins, blank: Blank::Blanks, shape, turns: false, minimum_pairs: 3, tolerant_pairs: true }
}

fn skill(fields: &mut Fields, leaf: &mut Leaf, report: &mut Report<'_>) {
    leaf.created_by = fields.text_or_blank("created_by", Blank::Blanks, report).unwrap_or_default();
    let blank = if leaf.version == LeafVersion::V1 { Blank::Empty } else { Blank::Blanks };
    leaf.task_description = fields.text_or_blank("task_description", blank, report).unwrap_or_default();
    leaf.seeds = seeds::read(fields, rules(leaf.version, Shape::Flat), report);
    leaf.kind = skill_kind(&leaf.seeds, report);
}

fn knowledge(fields: &mut Fields, leaf: &mut Leaf, report: &mut Report<'_>) {
    leaf.kind = LeafKind::Knowledge;
    if leaf.version != LeafVersion::V3 {
        report.error(
            fields.place,
            "knowledge before version 3 is no longer read",
            "write `version: 3`, with contexts that have 3 `questions_and_answers` each, or use `espalier: 1`",
        );
        for key in ["created_by", "domain", "task_description", "document_outline", "seed_examples", "document"] {
            fields.take(key);
        }
        return;
    }
    leaf.created_by = fields.text_or_blank("created_by", Blank::Blanks, report).unwrap_or_default();
    leaf.domain = fields.text_or_blank("domain", Blank::Blanks, report);
    leaf.document_outline = fields.text_or_blank("document_outline", Blank::Blanks, report);
    leaf.seeds = seeds::read(fields, rules(leaf.version, Shape::Grouped), report);
    leaf.documents = git_document(fields, report);
}

/// A document in git: read where its clone is on this machine, else noted.
fn git_document(fields: &mut Fields, report: &mut Report<'_>) -> Vec<Document> {
    let Some(node) = fields.require("document", report) else { return Vec::new() };
    let place = node.place;
    let Some(mut document) = Fields::of(node, "`document`", report) else { return Vec::new() };
    let documents = document::git(&mut document, place, report);
    document.refuse_the_rest(report);
    documents
}
