//! Zip archives that hold documents.

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::{ExtractError, Format, Limits};

/// An archive whose parts are read one by one, each within what is left of the limits.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    left: usize,
    limits: Limits,
}

impl<'a> Archive<'a> {
    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, ExtractError> {
        let zip = open(bytes)?;
        if zip.len() > limits.entries {
            return Err(ExtractError::Limit { what: "the number of entries", limit: limits.entries as u64 });
        }
        for name in zip.file_names() {
            let name = name.map_err(|error| damaged(error.to_string()))?;
            let leaves =
                name.starts_with(['/', '\\']) || name.contains(':') || name.split(['/', '\\']).any(|part| part == "..");
            if leaves {
                return Err(damaged(format!("the name of an entry leads out of it: {}", name.escape_debug())));
            }
        }
        Ok(Self { zip, left: limits.unpacked_bytes, limits: *limits })
    }

    /// A part; nothing where the archive does not have it.
    pub fn part(&mut self, name: &str) -> Result<Option<Vec<u8>>, ExtractError> {
        let file = match self.zip.by_name(name) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED)) => {
                return Err(ExtractError::Encrypted("DOCX"));
            }
            Err(error) => return Err(damaged(error.to_string())),
        };
        // What an entry says of its size is not believed: what comes out of it is counted.
        let allowed = self.limits.ratio.saturating_mul(file.compressed_size()).max(1 << 20);
        let most = allowed.min(self.left as u64);
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(|error| damaged(format!("{name}: {error}")))?;
        if bytes.len() as u64 > most {
            return Err(if most < allowed {
                ExtractError::Limit { what: "what it unpacks to in bytes", limit: self.limits.unpacked_bytes as u64 }
            } else {
                ExtractError::Limit { what: "the growth of a part as it unpacks", limit: self.limits.ratio }
            });
        }
        self.left -= bytes.len();
        Ok(Some(bytes))
    }
}

/// What the archive is, by the parts that it has.
pub(super) fn kind(bytes: &[u8]) -> Result<Format, ExtractError> {
    let zip = open(bytes)?;
    let has = |name: &str| zip.index_for_name(name).is_some();
    if has("word/document.xml") {
        return Ok(Format::Docx);
    }
    Err(ExtractError::Unsupported(if has("xl/workbook.xml") {
        "an Excel workbook (save its sheets as CSV)"
    } else if has("ppt/presentation.xml") {
        "a PowerPoint presentation (save it as PDF)"
    } else if has("content.xml") {
        "an OpenDocument file (save it as DOCX)"
    } else if has("META-INF/container.xml") {
        "an EPUB book (save it as HTML)"
    } else {
        "a zip archive"
    }))
}

fn open(bytes: &[u8]) -> Result<ZipArchive<Cursor<&[u8]>>, ExtractError> {
    ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(error.to_string()))
}

fn damaged(reason: String) -> ExtractError {
    ExtractError::Damaged { form: "zip archive", reason }
}
