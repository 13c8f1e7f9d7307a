//! Documents of any usual form as one text in Markdown.
//!
//! [`extract`] looks at what a file holds first and at its name second, and gives headings, paragraphs, lists, tables and
//! code as Markdown, so that everything behind it knows one form only. Files come from strangers: each reader keeps to the
//! [`Limits`], opens no other file and no connection, and gives an error in place of a guess that loses text.

mod archive;
mod blocks;
mod cache;
mod docx;
mod encoding;
mod format;
mod html;
mod json;
mod markdown;
mod pdf;
mod source;
mod table;
mod xml;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use cache::{ExtractCache, extract_once, keep_texts_in};
pub use format::Format;

/// The version of the readers: a text that another version extracted is extracted anew.
pub const READER_VERSION: u32 = 1;

/// What a document may cost. Its defaults are far above real documents and far below what hurts a small machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest file in bytes.
    pub file_bytes: usize,
    /// Longest text in bytes that comes out of it.
    pub text_bytes: usize,
    /// What all compressed parts of the file together may unpack to, in bytes.
    pub unpacked_bytes: usize,
    /// How many times its packed size a part above a mebibyte may unpack to.
    pub ratio: u64,
    /// Most entries of an archive.
    pub entries: usize,
    /// Deepest nesting of XML elements and of objects in a PDF.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            text_bytes: 16 << 20,
            unpacked_bytes: 256 << 20,
            ratio: 500,
            entries: 10_000,
            depth: 128,
        }
    }
}

/// A document as Markdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extracted {
    /// Headings, paragraphs, lists, tables and fenced code, separated by empty lines; `\n` as line end.
    pub text: String,
    /// What the document calls itself, or its first heading.
    pub title: Option<String>,
    /// Pages, where the form knows pages.
    pub pages: Option<usize>,
    /// What was mended or left out, in the order found.
    pub warnings: Vec<String>,
}

/// Why a document gives no text. Each message goes on from the name of the file.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The file system refuses.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Nothing but white space in it.
    #[error("is empty")]
    Empty,
    /// A form that is not read here.
    #[error("is {0}, which is not read here")]
    Unsupported(&'static str),
    /// Bytes that are no text.
    #[error("is not text: {control} of its first {of} bytes are control characters")]
    Binary {
        /// Control characters seen.
        control: usize,
        /// Bytes looked at.
        of: usize,
    },
    /// Locked by a password.
    #[error("is an encrypted {0}")]
    Encrypted(&'static str),
    /// Pictures of pages.
    #[error("has no text on its {pages} page(s), so they are pictures of text")]
    Scanned {
        /// Pages looked at.
        pages: usize,
    },
    /// Not what its form demands.
    #[error("is a damaged {form}: {reason}")]
    Damaged {
        /// The form.
        form: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// More than a document may cost.
    #[error("passes a limit: {what} is more than {limit}")]
    Limit {
        /// What grew too large.
        what: &'static str,
        /// The limit that it passed.
        limit: u64,
    },
}

impl ExtractError {
    /// How to get at the text.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read(_) => "check that the file is there and readable",
            Self::Empty => "write its text, or leave it out",
            Self::Unsupported(_) => "save it as PDF, DOCX, HTML or Markdown",
            Self::Binary { .. } => "give a text, or a PDF, DOCX or HTML file; save texts in the encoding UTF-8",
            Self::Encrypted("PDF") => "save it without a password: `qpdf --decrypt IN.pdf OUT.pdf`",
            Self::Encrypted(_) => "save it without a password",
            Self::Scanned { .. } => {
                "give a PDF with a text layer (`ocrmypdf IN.pdf OUT.pdf` adds one), or Markdown that a docling server made of it"
            }
            Self::Damaged { .. } => "open it in the program that made it and save it again, or save it as Markdown",
            Self::Limit { .. } => "cut it into smaller documents",
        }
    }
}

/// Reads one document.
///
/// # Errors
/// Files that cannot be read, that are empty, encrypted, damaged or not a document, scans without a text layer, and whatever
/// passes the limits.
pub fn extract(path: &Path, limits: &Limits) -> Result<Extracted, ExtractError> {
    extract_bytes(path, &read(path, limits)?, limits)
}

/// Reads one document that is in memory; `name` tells forms apart whose bytes look alike.
///
/// # Errors
/// As [`extract`], but for those of the file system.
pub fn extract_bytes(name: &Path, bytes: &[u8], limits: &Limits) -> Result<Extracted, ExtractError> {
    if bytes.len() > limits.file_bytes {
        return Err(ExtractError::Limit { what: "its size in bytes", limit: limits.file_bytes as u64 });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ExtractError::Empty);
    }
    let format = Format::of(name, bytes)?;
    let mut extracted = match format {
        Format::Pdf => pdf::read(bytes, limits)?,
        Format::Docx => docx::read(bytes, limits)?,
        Format::Html => html::read(bytes, limits)?,
        Format::Markdown => markdown::read(encoding::decode(bytes)?),
        Format::Text => markdown::plain(encoding::decode(bytes)?),
        Format::Separated => table::read(name, encoding::decode(bytes)?, limits)?,
        Format::Json => json::read(encoding::decode(bytes)?, limits)?,
        Format::JsonLines => json::read_lines(encoding::decode(bytes)?, limits)?,
        Format::Source(language) => source::read(name, language, encoding::decode(bytes)?, limits)?,
    };
    if extracted.text.trim().is_empty() {
        return Err(ExtractError::Empty);
    }
    if extracted.text.len() > limits.text_bytes {
        return Err(ExtractError::Limit { what: "its text in bytes", limit: limits.text_bytes as u64 });
    }
    if extracted.title.as_deref().is_none_or(str::is_empty) {
        extracted.title = blocks::first_heading(&extracted.text);
    }
    Ok(extracted)
}

/// The bytes of a file that is not too long; at most one more than the limit are ever held.
fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, ExtractError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits.file_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
