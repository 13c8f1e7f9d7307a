//! Cutting a Markdown document into pieces that a model can read at once.

mod blocks;
mod cut;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hash::hexadecimal;
use crate::leaf::Document;
use blocks::{Section, sections};
use cut::{Cutter, Piece};

/// How a document is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSettings {
    /// Longest chunk in tokens, as the caller counts them.
    pub max_tokens: usize,
    /// How many tokens a chunk may repeat of the one before it, in whole sentences; at most half a chunk. Sections are not
    /// mixed, and tables, lists and code are not repeated.
    pub overlap: usize,
}

impl Default for ChunkSettings {
    fn default() -> Self {
        Self { max_tokens: 300, overlap: 0 }
    }
}

/// A piece of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chunk {
    /// The headings above it, outermost first, joined by ` > `; empty before the first heading.
    pub heading: String,
    /// Its paragraphs, separated by empty lines; headings are not repeated in it.
    pub text: String,
    /// Hexadecimal sha256 of heading, a line end and text: what tells chunks apart wherever they lie.
    pub hash: String,
    /// Line of the document that it begins on, from 1; what it repeats of the chunk before it does not count.
    pub first_line: usize,
    /// Line that it ends on.
    pub last_line: usize,
}

/// Cuts a document into chunks of at most `max_tokens`, as `count_tokens` counts.
///
/// Sections are not mixed. In a section, paragraphs, lists, tables and code stay whole where they fit and are gathered
/// greedily. A longer table is cut between rows and each part begins with its header; longer code is cut at empty lines, then
/// at lines, and each part has its fence; a longer list is cut at lines, a longer paragraph at sentences, a longer sentence at
/// words, and a longer word stands alone. All text of the document below headings is in some chunk, in order.
pub fn chunks(document: &Document, settings: &ChunkSettings, count_tokens: &dyn Fn(&str) -> usize) -> Vec<Chunk> {
    let cutter = Cutter { max_tokens: settings.max_tokens, count_tokens };
    let overlap = settings.overlap.min(settings.max_tokens / 2);
    let mut result = Vec::new();
    for section in sections(&document.text) {
        gather(&section, &cutter, overlap, &mut result);
    }
    result
}

/// Fills chunks with the blocks of one section.
fn gather(section: &Section, cutter: &Cutter<'_>, overlap: usize, chunks: &mut Vec<Chunk>) {
    let mut current: Option<Piece> = None;
    for piece in section.blocks.iter().flat_map(|block| cutter.pieces(block)) {
        if let Some(before) = &mut current {
            let joined = format!("{}\n\n{}", before.text, piece.text);
            if cutter.fits(&joined) {
                *before = Piece { text: joined, tail: piece.tail, last_line: piece.last_line, ..*before };
                continue;
            }
        }
        let next = match &current {
            Some(before) => repeat(before, piece, cutter, overlap),
            None => piece,
        };
        if let Some(done) = current.replace(next) {
            chunks.push(chunk(&section.heading, done));
        }
    }
    chunks.extend(current.map(|done| chunk(&section.heading, done)));
}

/// The piece with the last sentences of the one before it in front, as many as the overlap and the chunk have room for.
fn repeat(before: &Piece, piece: Piece, cutter: &Cutter<'_>, overlap: usize) -> Piece {
    if overlap == 0 || !before.tail {
        return piece;
    }
    // Parts of one paragraph end on the same line.
    let separator = if before.last_line == piece.last_line { " " } else { "\n\n" };
    let last = before.text.rsplit("\n\n").next().unwrap_or_default();
    let sentences = cut::sentences(last);
    let mut best = None;
    for from in (0..sentences.len()).rev() {
        let repeated = sentences[from..].join(" ");
        let joined = format!("{repeated}{separator}{}", piece.text);
        if (cutter.count_tokens)(&repeated) > overlap || !cutter.fits(&joined) {
            break;
        }
        best = Some(joined);
    }
    match best {
        Some(text) => Piece { text, ..piece },
        None => piece,
    }
}

fn chunk(heading: &str, piece: Piece) -> Chunk {
    let Piece { text, first_line, last_line, .. } = piece;
    let mut hash = Sha256::new();
    hash.update(heading.as_bytes());
    hash.update(b"\n");
    hash.update(text.as_bytes());
    Chunk { heading: heading.to_owned(), text, hash: hexadecimal(&hash.finalize()), first_line, last_line }
}

#[cfg(test)]
mod tests;
