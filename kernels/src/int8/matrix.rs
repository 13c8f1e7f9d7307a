//! Frozen weights as panels of bytes.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{BLOCK, OFFSET, SHIFT_OF_16, SHIFT_OF_32, WORDS, block_lines};
use crate::block_product::{QUAD, Second, Unpack, unpacker};
use crate::buffer::{Line, zeroed_lines};
use crate::panels::PANEL;
use crate::{BlockType, StoredMatrix};

/// 32-bit words in a line.
const LINE_WORDS: usize = size_of::<Line>() / size_of::<u32>();

/// A frozen weight `W [rows = outputs, columns = inputs]` as bytes with the scales of its file's blocks, packed once for
/// `y = x W^T` with activations of 8 bits. It takes 1.125 or 1.25 bytes a value.
#[derive(Clone)]
pub struct Int8Matrix {
    rows: usize,
    columns: usize,
    panels: Vec<Panel>,
    lines: Vec<Line>,
}

/// Up to 32 outputs of one tensor.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// What the second factors are.
    pub(super) second: Second,
    /// The offset of its bytes is `OFFSET >> shift`.
    pub(super) shift: u32,
    /// Outputs that exist.
    pub(super) outputs: Range<usize>,
    /// Where its lines begin.
    first_line: usize,
}

impl std::fmt::Debug for Int8Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Matrix({} x {})", self.rows, self.columns)
    }
}

impl Int8Matrix {
    /// Lays the blocks of `w` out anew.
    ///
    /// # Panics
    /// If a part of `w` has blocks of a type for which [`has_block_product`](crate::has_block_product) is false.
    pub fn pack(w: &StoredMatrix) -> Self {
        let blocks = w.columns() / BLOCK;
        assert_eq!(blocks * BLOCK, w.columns(), "rows of whole blocks");
        let (mut panels, mut sources, mut count) = (Vec::new(), Vec::new(), 0);
        for (first, part) in w.parts() {
            let (second, unpack) = unpacker(part.block_type()).expect("a type of blocks that has a product");
            let shift = match part.block_type() {
                BlockType::Q4_0 | BlockType::Q5_0 => SHIFT_OF_16,
                BlockType::Q6K => SHIFT_OF_32,
                _ => 0,
            };
            let rows = part.as_bytes().chunks(part.row_bytes() * PANEL).enumerate();
            for (index, bytes) in rows {
                let first = first + index * PANEL;
                let outputs = first..first + bytes.len() / part.row_bytes();
                panels.push(Panel { second, shift, outputs, first_line: count });
                sources.push((bytes, part.row_bytes(), unpack));
                count += blocks * block_lines(second);
            }
        }
        let mut lines = zeroed_lines(count);
        let mut rest = lines.as_mut_slice();
        let mut work = Vec::with_capacity(panels.len());
        for (panel, (bytes, row_bytes, unpack)) in panels.iter().zip(sources) {
            let (own, others) = rest.split_at_mut(blocks * block_lines(panel.second));
            rest = others;
            work.push((panel, own, bytes, row_bytes, unpack));
        }
        work.into_par_iter().for_each(|(panel, lines, bytes, row_bytes, unpack)| {
            for (output, row) in bytes.chunks_exact(row_bytes).enumerate() {
                pack_row(panel, row, unpack, output, lines);
            }
        });
        Self { rows: w.rows(), columns: w.columns(), panels, lines }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Memory that the packed form occupies, padding included.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    pub(super) fn panels(&self) -> &[Panel] {
        &self.panels
    }

    /// The blocks of a panel, one after another.
    pub(super) fn lines(&self, panel: &Panel) -> &[Line] {
        &self.lines[panel.first_line..][..self.columns / BLOCK * block_lines(panel.second)]
    }
}

/// Writes one output of a panel.
fn pack_row(panel: &Panel, row: &[u8], unpack: Unpack, output: usize, lines: &mut [Line]) {
    let words: &mut [u32] = bytemuck::cast_slice_mut(lines);
    let second = panel.second;
    let offset = if second == Second::Addend { 0 } else { (OFFSET >> panel.shift) as u8 };
    let blocks = words.chunks_mut(QUAD / BLOCK * block_lines(second) * LINE_WORDS);
    for (quad, words) in blocks.enumerate() {
        let weights = unpack(row, quad);
        for (block, words) in words.chunks_exact_mut(block_lines(second) * LINE_WORDS).enumerate() {
            let half = block * (BLOCK / 2)..(block + 1) * (BLOCK / 2);
            let numbers = [&weights.first[half.clone()], &weights.second[half]];
            let fours = numbers.into_iter().flat_map(|numbers| numbers.as_chunks::<4>().0);
            for (word, numbers) in fours.enumerate() {
                let bytes = numbers.map(|number| (number as u8).wrapping_add(offset));
                words[word * PANEL + output] = u32::from_ne_bytes(bytes);
            }
            let factors = [weights.scales[4 * block], weights.others[4 * block]];
            let kept = if second == Second::None { 1 } else { 2 };
            for (factor, value) in factors.into_iter().take(kept).enumerate() {
                words[(WORDS + factor) * PANEL + output] = value.to_bits();
            }
        }
    }
}
