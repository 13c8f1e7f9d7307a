//! A document that lies beside its leaf.

use std::fs;
use std::path::Component;
use std::path::Path;

use super::Report;
use super::fields::Fields;
use crate::leaf::Document;

/// Reads `document: {path: FILE}`.
pub(crate) fn read(fields: &mut Fields, report: &mut Report<'_>) -> Vec<Document> {
    let Some(node) = fields.require("document", report) else { return Vec::new() };
    let Some(mut document) = Fields::of(node, "`document`", report) else { return Vec::new() };
    let path = document.required_text("path", report);
    document.refuse_the_rest(report);
    let Some((name, place)) = path else { return Vec::new() };
    if !stays_inside(Path::new(&name)) {
        report.error(
            place,
            format!("the document {name} lies outside the folder of its leaf"),
            "copy it into the folder and give its name there: a leaf must be whole when it is moved",
        );
        return Vec::new();
    }
    let file = report.file.with_file_name(&name);
    match fs::read(&file) {
        Err(error) => {
            report.error(
                place,
                format!("the document {name} cannot be read: {error}"),
                format!("put it at {}, or correct `path`", file.display()),
            );
            Vec::new()
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            Err(_) => {
                report.error(
                    place,
                    format!("the document {name} is not UTF-8 text"),
                    "convert it to Markdown in UTF-8",
                );
                Vec::new()
            }
            Ok(text) if text.trim().is_empty() => {
                report.error(place, format!("the document {name} is empty"), "write its text");
                Vec::new()
            }
            Ok(text) => {
                let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
                vec![Document { path: file, text }]
            }
        },
    }
}

/// Whether a path names something in the folder that it is relative to.
pub(crate) fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
