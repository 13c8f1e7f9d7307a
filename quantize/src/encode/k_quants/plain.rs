//! The k-quants without importance: the errors are weighted by the values themselves.

use espalier_kernels::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, K_BLOCK};

use super::super::EncodeBlock;
use super::super::lanes::{Lanes, side_by_side};
use super::super::nearest::nearest_integer;
use super::super::search::{Grid, Shifted, refined, with_minimum};
use super::{SixBitScales, of_largest_magnitude, round_again, three_bit_block, two_bit_block};

type Values = [f32; K_BLOCK];

/// Greatest of numbers of which only those above zero count, else 0.
#[inline(always)]
fn greatest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |greatest, number| if *number > greatest { *number } else { greatest })
}

#[inline(always)]
fn with_six_bit_scales(values: &Values, grid: &Grid) -> (SixBitScales, Lanes<f32, 8, 32>) {
    let x: Lanes<f32, 8, 32> = side_by_side(values);
    let mut sum_x2 = [0.0; 8];
    for x in &x {
        for l in 0..8 {
            sum_x2[l] += x[l] * x[l];
        }
    }
    let mut weights = [[0.0; 8]; 32];
    let root_mean_square = sum_x2.map(|sum| (sum / 32.0f32).sqrt());
    for i in 0..32 {
        for l in 0..8 {
            weights[i][l] = root_mean_square[l] + x[i][l].abs();
        }
    }
    let Shifted { scale, minimum, mut levels } = with_minimum::<8, 32, false>(&x, &weights, grid);

    let (max_scale, max_minimum) = (greatest(&scale), greatest(&minimum));
    let inverse_scale = if max_scale > 0.0 { 63.0 / max_scale } else { 0.0 };
    let inverse_minimum = if max_minimum > 0.0 { 63.0 / max_minimum } else { 0.0 };
    let sc = scale.map(|scale| (nearest_integer(inverse_scale * scale) as u8).min(63));
    let m = minimum.map(|minimum| (nearest_integer(inverse_minimum * minimum) as u8).min(63));
    let scales = SixBitScales::new(max_scale / 63.0, max_minimum / 63.0, sc, m);
    let (step, shift) = scales.steps();
    round_again(&x, &step, &shift, grid.greatest, &mut levels);
    (scales, levels)
}

impl EncodeBlock<K_BLOCK> for BlockQ4K {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let grid = Grid { greatest: 15.0, first: -1.0, delta: 0.1, steps: 20 };
        let (scales, levels) = with_six_bit_scales(values, &grid);
        scales.four_bit_block(&levels)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ5K {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let grid = Grid { greatest: 31.0, first: -0.5, delta: 0.1, steps: 15 };
        let (scales, levels) = with_six_bit_scales(values, &grid);
        scales.five_bit_block(&levels)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ3K {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let found = refined(&x, 4.0);
        let (largest, _) = of_largest_magnitude(&found.scale);
        let mut sc = [-32; 16];
        let mut d = 0.0;
        if largest != 0.0 {
            let inverse = -32.0 / largest;
            sc = found.scale.map(|scale| i32::from(nearest_integer(inverse * scale) as i8).clamp(-32, 31));
            d = 1.0 / inverse;
        }
        three_bit_block(&x, d, sc, found.levels)
    }
}

impl EncodeBlock<K_BLOCK> for BlockQ2K {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let weights = x.map(|x| x.map(f32::abs));
        let grid = Grid { greatest: 3.0, first: -0.5, delta: 0.1, steps: 15 };
        let Shifted { scale, minimum, levels } = with_minimum::<16, 16, true>(&x, &weights, &grid);

        let (max_scale, max_minimum) = (greatest(&scale), greatest(&minimum));
        let mut scales = [0u8; 16];
        if max_scale > 0.0 {
            let inverse = 15.0 / max_scale;
            scales = scale.map(|scale| nearest_integer(inverse * scale) as u8);
        }
        if max_minimum > 0.0 {
            let inverse = 15.0 / max_minimum;
            for (sc, minimum) in scales.iter_mut().zip(minimum) {
                *sc |= (nearest_integer(inverse * minimum) << 4) as u8;
            }
        }
        two_bit_block(&x, (max_scale / 15.0, max_minimum / 15.0), scales, levels)
    }
}
