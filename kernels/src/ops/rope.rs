//! Rotary position embedding.
//!
//! Pair `i` of the rotated part of a head turns by `position * theta^(-2 i / rotary_dims) / factor_i`:
//! `(a, b) -> (a cos - b sin, a sin + b cos)`. The backward direction turns by the negative angle. Elements beyond
//! `rotary_dims` pass unchanged.

use super::TASK_ELEMENTS;
use super::simd::{Operation, Simd, dispatch};
use crate::{InstructionSet, parallel};

/// Which elements of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours: `2 i` and `2 i + 1` (GGUF architecture `llama`).
    Interleaved,
    /// Halves of the rotated part: `i` and `i + rotary_dims / 2` (GGUF architecture `qwen2`).
    Halves,
}

/// Whether vectors turn forward or, for gradients, back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// By the angle of the position.
    Forward,
    /// By its negative: the inverse and the gradient of the forward turn.
    Backward,
}

/// Cosines and sines of all positions.
#[derive(Debug, Clone)]
pub struct RopeTable {
    head_dim: usize,
    pairs: usize,
    positions: usize,
    /// `[positions, pairs]`.
    cosines: Vec<f32>,
    /// `[positions, pairs]`.
    sines: Vec<f32>,
}

impl RopeTable {
    /// Computes the table in double precision for positions `0..positions`.
    ///
    /// `frequency_factors`, one for each pair, divide the frequencies (tensor `rope_freqs.weight`).
    ///
    /// # Panics
    ///
    /// When `rotary_dims` is odd or larger than `head_dim`, or the factors are not one for each pair.
    pub fn new(
        head_dim: usize,
        rotary_dims: usize,
        theta: f32,
        frequency_factors: Option<&[f32]>,
        positions: usize,
    ) -> Self {
        assert!(
            rotary_dims.is_multiple_of(2) && rotary_dims <= head_dim,
            "RopeTable: {rotary_dims} rotary dimensions do not fit a head of {head_dim}"
        );
        let pairs = rotary_dims / 2;
        if let Some(factors) = frequency_factors {
            assert_eq!(factors.len(), pairs, "RopeTable: the frequency factors are not one for each pair");
        }
        let frequencies: Vec<f64> = (0..pairs)
            .map(|pair| {
                let factor = frequency_factors.map_or(1.0, |factors| f64::from(factors[pair]));
                f64::from(theta).powf(-2.0 * pair as f64 / rotary_dims as f64) / factor
            })
            .collect();
        let mut cosines = Vec::with_capacity(positions * pairs);
        let mut sines = Vec::with_capacity(positions * pairs);
        for position in 0..positions {
            for frequency in &frequencies {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                cosines.push(cosine as f32);
                sines.push(sine as f32);
            }
        }
        Self { head_dim, pairs, positions, cosines, sines }
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Pairs of a head that turn.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// Cosines and sines `[positions, pairs]`.
    pub fn angles(&self) -> (&[f32], &[f32]) {
        (&self.cosines, &self.sines)
    }
}

/// Rotates `x [t, heads * head_dim]` in place, row `t` to `positions[t]`.
///
/// # Panics
///
/// When the lengths do not fit together, the table is for another head size, or a position lies beyond the table.
pub fn rope(
    x: &mut [f32],
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &RopeTable,
    style: RopeStyle,
    direction: Direction,
) {
    rope_with(InstructionSet::detect(), x, heads, positions, Turn { head_dim, table, style, direction });
}

#[derive(Clone, Copy)]
struct Turn<'a> {
    head_dim: usize,
    table: &'a RopeTable,
    style: RopeStyle,
    direction: Direction,
}

fn rope_with(isa: InstructionSet, x: &mut [f32], heads: usize, positions: &[u32], turn: Turn<'_>) {
    let width = heads * turn.head_dim;
    assert_eq!(x.len(), positions.len() * width, "rope: x is not one row of {width} for each position");
    assert_eq!(turn.head_dim, turn.table.head_dim, "rope: the table is for another head size");
    for position in positions {
        assert!(
            (*position as usize) < turn.table.positions,
            "rope: position {position} lies beyond the table of {}",
            turn.table.positions
        );
    }
    if width == 0 {
        return;
    }
    let rows = (TASK_ELEMENTS / width).max(1);
    parallel::for_each_chunk(x, rows * width, |index, x| {
        let positions = &positions[index * rows..][..x.len() / width];
        dispatch(isa, Rotate { x, width, positions, turn });
    });
}

struct Rotate<'a> {
    x: &'a mut [f32],
    width: usize,
    positions: &'a [u32],
    turn: Turn<'a>,
}

impl Operation for Rotate<'_> {
    type Output = ();

    // The loops are plain: compiled for the instruction set, they become vectors by themselves, and nothing is fused,
    // so that all instruction sets give the same bits.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Turn { head_dim, table, style, direction } = self.turn;
        let sign = match direction {
            Direction::Forward => 1.0,
            Direction::Backward => -1.0,
        };
        for (row, position) in self.x.chunks_exact_mut(self.width).zip(self.positions) {
            let from = *position as usize * table.pairs;
            let cosines = &table.cosines[from..from + table.pairs];
            let sines = &table.sines[from..from + table.pairs];
            for head in row.chunks_exact_mut(head_dim) {
                let rotated = &mut head[..2 * table.pairs];
                match style {
                    RopeStyle::Interleaved => {
                        for ((pair, cosine), sine) in rotated.as_chunks_mut::<2>().0.iter_mut().zip(cosines).zip(sines)
                        {
                            let [a, b] = *pair;
                            let sine = sign * sine;
                            *pair = [a * cosine - b * sine, a * sine + b * cosine];
                        }
                    }
                    RopeStyle::Halves => {
                        let (low, high) = rotated.split_at_mut(table.pairs);
                        for (((low, high), cosine), sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                            let (a, b) = (*low, *high);
                            let sine = sign * sine;
                            *low = a * cosine - b * sine;
                            *high = a * sine + b * cosine;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, noise, with_threads};

    const STYLES: [RopeStyle; 2] = [RopeStyle::Interleaved, RopeStyle::Halves];

    fn reference(x: &[f32], head_dim: usize, rotary_dims: usize, positions: &[u32], style: RopeStyle) -> Vec<f64> {
        let width = x.len() / positions.len();
        let mut out: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        for (row, position) in out.chunks_mut(width).zip(positions) {
            for head in row.chunks_mut(head_dim) {
                for pair in 0..rotary_dims / 2 {
                    let (i, j) = match style {
                        RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                        RopeStyle::Halves => (pair, pair + rotary_dims / 2),
                    };
                    let angle = f64::from(*position) * 10_000_f64.powf(-2.0 * pair as f64 / rotary_dims as f64);
                    let (a, b) = (head[i], head[j]);
                    head[i] = a * angle.cos() - b * angle.sin();
                    head[j] = a * angle.sin() + b * angle.cos();
                }
            }
        }
        out
    }

    #[test]
    fn turns_by_the_angle_of_the_position_in_both_styles() {
        let positions = [0, 1, 17, 999];
        for (head_dim, rotary_dims) in [(8, 8), (64, 64), (80, 32), (6, 6)] {
            let table = RopeTable::new(head_dim, rotary_dims, 10_000.0, None, 1000);
            let x = noise(1, 4 * 3 * head_dim);
            for style in STYLES {
                let truth = reference(&x, head_dim, rotary_dims, &positions, style);
                let mut bits: Option<Vec<f32>> = None;
                for isa in InstructionSet::available() {
                    let mut out = x.clone();
                    let direction = Direction::Forward;
                    rope_with(isa, &mut out, 3, &positions, Turn { head_dim, table: &table, style, direction });
                    assert_close(&out, &truth, 1e-6, isa.name());
                    assert_eq!(*bits.get_or_insert_with(|| out.clone()), out, "{}", isa.name());
                }
            }
        }
    }

    #[test]
    fn backward_is_the_transpose_of_forward() {
        let table = RopeTable::new(16, 16, 10_000.0, Some(&[1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]), 64);
        let (x, dy) = (noise(2, 5 * 32), noise(3, 5 * 32));
        let positions = [3, 9, 27, 60, 63];
        for style in STYLES {
            let (mut y, mut dx) = (x.clone(), dy.clone());
            rope(&mut y, 2, 16, &positions, &table, style, Direction::Forward);
            rope(&mut dx, 2, 16, &positions, &table, style, Direction::Backward);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-5);
            assert_ne!(x, y);
        }
    }

    #[test]
    fn frequency_factors_divide_the_angle() {
        let plain = RopeTable::new(4, 4, 10_000.0, None, 9);
        let slowed = RopeTable::new(4, 4, 10_000.0, Some(&[2.0, 2.0]), 9);
        assert_eq!(slowed.cosines[8 * 2..], plain.cosines[4 * 2..5 * 2]);
        assert_eq!(slowed.positions(), 9);
    }

    #[test]
    fn threads_change_nothing() {
        let table = RopeTable::new(64, 64, 10_000.0, None, 256);
        let positions: Vec<u32> = (0..256).collect();
        let x = noise(4, 256 * 9 * 64);
        let run = || {
            let mut out = x.clone();
            rope(&mut out, 9, 64, &positions, &table, RopeStyle::Interleaved, Direction::Forward);
            out
        };
        assert_eq!(with_threads(1, run), with_threads(4, run));
    }
}
