//! PDF files that hold text. Of the crates that read PDF none keeps to bounds without drawing half the tree of dependencies
//! along, so the part of the format that carries text is read here: objects, streams, fonts' meanings and the operators that
//! show text. Pictures of text are not read, tables come as lines of text, and a file that is encrypted is refused.

mod content;
mod decode;
mod file;
mod font;
mod glyph_names;
mod layout;
mod object;
#[cfg(test)]
mod tests;

use super::blocks::Blocks;
use super::{ExtractError, Extracted, Limits};
use content::Interpreter;
use file::Pdf;
use object::Object;

const FORM: &str = "PDF";

/// A share of characters without a meaning above which the text is no text, in hundredths.
const UNKNOWN_PERCENT: usize = 50;

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Extracted, ExtractError> {
    let pdf = Pdf::open(bytes, limits)?;
    let pages = pdf.pages();
    if pages.is_empty() {
        return Err(damaged("it has no pages"));
    }
    let mut interpreter = Interpreter::new(&pdf, limits);
    let mut lines = Vec::new();
    for page in &pages {
        lines.push(layout::lines(interpreter.page(page)?));
    }
    let (known, unknown) = (interpreter.known, interpreter.unknown);
    if known + unknown == 0 || unknown * 100 > (known + unknown) * UNKNOWN_PERCENT {
        return Err(ExtractError::Scanned { pages: pages.len() });
    }
    let mut warnings = Vec::new();
    if unknown > 0 {
        warnings.push(format!("{unknown} of {} characters have no meaning in the file: left out", known + unknown));
    }
    let empty = lines.iter().filter(|lines| lines.is_empty()).count();
    if empty > 0 {
        warnings.push(format!("{empty} of {} page(s) have no text: pictures, or empty", pages.len()));
    }
    if pdf.cut_streams() > 0 {
        warnings.push(format!("{} part(s) of the file are damaged and were read as far as they go", pdf.cut_streams()));
    }
    let mut blocks = Blocks::new(limits);
    layout::write(lines, &mut blocks)?;
    let title = pdf.title();
    Ok(Extracted { text: blocks.finish(), title, pages: Some(pages.len()), warnings })
}

fn damaged(reason: &str) -> ExtractError {
    ExtractError::Damaged { form: FORM, reason: reason.to_owned() }
}

/// Text of a string outside of pages: UTF-16 with a mark, or Latin-1.
fn text_string(object: &Object) -> Option<String> {
    let Object::String(bytes) = object else { return None };
    let text = match bytes.strip_prefix(b"\xfe\xff") {
        Some(wide) => encoding_rs::UTF_16BE.decode_without_bom_handling(wide).0.into_owned(),
        None => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
        },
    };
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
