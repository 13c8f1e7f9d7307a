//! Panels: the layout of packed weights, and the packing of a window of a matrix into them.
//!
//! Panels of 32 outputs lie one after another; outputs are padded to 32 and inputs to a multiple of 16 or 32 with zeros.
//! Inside a bf16 panel each pair of inputs (k, k + 1) has 128 bytes: 32 pairs of bf16, one for each output, even input
//! in the low half. `VDPBF16PS` takes half of them as one register; an AMX tile of 16 pairs x 16 outputs is read from
//! the same place with a stride of 128; the other instruction sets widen (even: shift left by 16, odd: mask). Inside an
//! f32 panel each input has 32 f32.

use std::ops::Range;

use rayon::prelude::*;

use crate::Precision;
use crate::buffer::{Line, SharedMut};
use crate::gemm::{round_pairs, round_row};
use crate::transpose::transpose;

/// Outputs in a panel.
pub(crate) const PANEL: usize = 32;
/// Inputs are padded to a multiple of this: the depth of an AMX tile.
pub(crate) const INPUT_BLOCK: usize = 32;
/// 32-bit words in a cache line.
const WORDS: usize = 16;

/// Inputs that one 32-bit word holds.
pub(crate) const fn inputs_per_word(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 1,
        Precision::Bf16 => 2,
    }
}

/// 32-bit words that one output occupies, padding included.
pub(crate) const fn words_per_output(precision: Precision, inputs: usize) -> usize {
    inputs.next_multiple_of(INPUT_BLOCK) / inputs_per_word(precision)
}

/// Cache lines of the panels of `outputs` outputs with so many inputs, a multiple of 16.
pub(crate) const fn panel_lines(precision: Precision, outputs: usize, inputs: usize) -> usize {
    outputs.div_ceil(PANEL) * (inputs / inputs_per_word(precision)) * PANEL / WORDS
}

/// Writes some columns of a row of a matrix.
pub(crate) type FillColumns<'a> = dyn Fn(usize, Range<usize>, &mut [f32]) + Sync + 'a;

/// A part of a matrix, to be packed.
pub(crate) struct Window<'a> {
    /// What the values are stored in.
    pub(crate) precision: Precision,
    /// Its rows.
    pub(crate) rows: Range<usize>,
    /// Its columns.
    pub(crate) columns: Range<usize>,
    /// Most columns that are asked for at one time; a multiple of 32 unless it is all of them.
    pub(crate) piece: usize,
    /// The matrix. Rows are asked for in parallel, each value once.
    pub(crate) fill: &'a FillColumns<'a>,
}

impl Window<'_> {
    /// The columns, piece by piece.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let (end, piece) = (self.columns.end, self.piece.max(1));
        self.columns.clone().step_by(piece).map(move |first| first..end.min(first + piece))
    }

    /// Packs rows as outputs and columns as inputs, padded to 32; all of `lines` is written.
    pub(crate) fn pack(&self, lines: &mut [Line]) {
        let inputs = self.columns.len().next_multiple_of(INPUT_BLOCK);
        assert_eq!(lines.len(), panel_lines(self.precision, self.rows.len(), inputs), "pack: lines of another window");
        if lines.is_empty() {
            return;
        }
        let piece = self.piece.min(self.columns.len());
        let per_word = inputs_per_word(self.precision);
        lines.par_chunks_exact_mut(panel_lines(self.precision, 1, inputs)).enumerate().for_each_init(
            || (vec![0.0; piece], vec![0_u32; PANEL * words_per_output(self.precision, piece)]),
            |(row, block), (panel, target)| {
                let target: &mut [u32] = bytemuck::cast_slice_mut(target);
                let first = self.rows.start + panel * PANEL;
                for columns in self.pieces() {
                    let words = words_per_output(self.precision, columns.len());
                    let place = (columns.start - self.columns.start) / per_word * PANEL;
                    let row = &mut row[..columns.len()];
                    for (output, words) in (first..).zip(block.chunks_exact_mut(words).take(PANEL)) {
                        if output < self.rows.end {
                            (self.fill)(output, columns.clone(), row);
                            write_row(self.precision, row, words);
                        } else {
                            words.fill(0);
                        }
                    }
                    transpose(block, words, PANEL, words, &mut target[place..], PANEL);
                }
            },
        );
    }

    /// Packs columns as outputs and rows as inputs, padded to `inputs` (a multiple of 16); all of `lines` is written.
    pub(crate) fn pack_transposed(&self, inputs: usize, lines: &mut [Line]) {
        assert_eq!(
            lines.len(),
            panel_lines(self.precision, self.columns.len(), inputs),
            "pack_transposed: lines of another window"
        );
        let per_word = inputs_per_word(self.precision);
        let words = inputs / per_word;
        let piece = self.piece.min(self.columns.len());
        let shared = SharedMut::new(bytemuck::cast_slice_mut::<Line, u32>(lines));
        (0..inputs.div_ceil(INPUT_BLOCK)).into_par_iter().for_each_init(
            || vec![0.0; INPUT_BLOCK * piece],
            |values, block| {
                let own = block * INPUT_BLOCK..inputs.min((block + 1) * INPUT_BLOCK);
                for columns in self.pieces() {
                    for (input, values) in own.clone().zip(values.chunks_exact_mut(columns.len())) {
                        if input < self.rows.len() {
                            (self.fill)(self.rows.start + input, columns.clone(), values);
                        } else {
                            values.fill(0.0);
                        }
                    }
                    let first_panel = (columns.start - self.columns.start) / PANEL;
                    for (panel, first) in (first_panel..).zip((0..columns.len()).step_by(PANEL)) {
                        let outputs = first..columns.len().min(first + PANEL);
                        let place = (panel * words + own.start / per_word) * PANEL;
                        // SAFETY: the words of this panel and these inputs, inside the buffer by the assertion above;
                        // every input belongs to one task only, so no two tasks write the same words.
                        let place =
                            unsafe { std::slice::from_raw_parts_mut(shared.at(place), own.len() / per_word * PANEL) };
                        write_inputs(self.precision, values, columns.len(), outputs, place.as_chunks_mut().0);
                    }
                }
            },
        );
    }
}

/// Writes inputs of one output as words; what lies beyond them becomes zero.
fn write_row(precision: Precision, row: &[f32], words: &mut [u32]) {
    match precision {
        Precision::F32 => {
            words[..row.len()].copy_from_slice(bytemuck::cast_slice(row));
            words[row.len()..].fill(0);
        }
        Precision::Bf16 => round_row(row, bytemuck::cast_slice_mut(words)),
    }
}

/// Writes some outputs of inputs, `columns` values each, as words; what lies beyond them becomes zero.
pub(crate) fn write_inputs(
    precision: Precision,
    inputs: &[f32],
    columns: usize,
    outputs: Range<usize>,
    words: &mut [[u32; PANEL]],
) {
    for (words, inputs) in words.iter_mut().zip(inputs.chunks_exact(inputs_per_word(precision) * columns)) {
        match precision {
            Precision::F32 => {
                words[..outputs.len()].copy_from_slice(bytemuck::cast_slice(&inputs[outputs.clone()]));
                words[outputs.len()..].fill(0);
            }
            Precision::Bf16 => {
                let (even, odd) = inputs.split_at(columns);
                pair_rows(&even[outputs.clone()], &odd[outputs.clone()], words);
            }
        }
    }
}

/// Rounds two inputs of some outputs to pairs; what lies beyond them becomes zero.
fn pair_rows(even: &[f32], odd: &[f32], words: &mut [u32; PANEL]) {
    if let (Ok(even), Ok(odd)) = (even.try_into(), odd.try_into()) {
        round_pairs(even, odd, words);
        return;
    }
    let mut padded = [[0.0; PANEL]; 2];
    padded[0][..even.len()].copy_from_slice(even);
    padded[1][..odd.len()].copy_from_slice(odd);
    round_pairs(&padded[0], &padded[1], words);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::bf16_bits;

    #[test]
    fn pairs_are_the_rounded_values_of_both_inputs() {
        let value = |seed: u32, i: usize| f32::from_bits((seed + i as u32).wrapping_mul(2_654_435_761));
        for count in [0, 1, 17, 31, 32] {
            let even: Vec<f32> = (0..count).map(|i| value(1, i)).collect();
            let odd: Vec<f32> = (0..count).map(|i| value(99, i)).collect();
            let mut words = [7; PANEL];
            pair_rows(&even, &odd, &mut words);
            for (i, &word) in words.iter().enumerate() {
                let half = |values: &[f32]| values.get(i).map_or(0, |&x| u32::from(bf16_bits(x)));
                assert_eq!(word, half(&even) | half(&odd) << 16, "word {i} of {count}");
            }
        }
    }
}
