//! The formats with three levels: `TQ1_0` and `TQ2_0`. The element of the largest magnitude gives the scale.

use espalier_kernels::blocks::{BlockTq1_0, BlockTq2_0, K_BLOCK};

use super::EncodeBlock;
use super::nearest::to_half;

type Values = [f32; K_BLOCK];

/// The scale, and each element as 0, 1 or 2.
#[inline(always)]
fn digits(values: &Values) -> (f32, [u8; K_BLOCK]) {
    let mut magnitudes = [0.0_f32; 16];
    for values in values.as_chunks::<16>().0 {
        for l in 0..16 {
            let magnitude = values[l].abs();
            magnitudes[l] = if magnitude > magnitudes[l] { magnitude } else { magnitudes[l] };
        }
    }
    let d = magnitudes.into_iter().fold(0.0, f32::max);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut digits = [0; K_BLOCK];
    for (digit, value) in digits.iter_mut().zip(values) {
        // Half away from zero, as roundf; no product is beyond 1 but by rounding.
        let part = value * inverse;
        *digit = 1 + u8::from(part >= 0.5) - u8::from(part <= -0.5);
    }
    (d, digits)
}

/// Five digits of base three as a fraction of 256, rounded up.
#[inline(always)]
fn fraction(digits: [u8; 5]) -> u8 {
    let number = digits.iter().fold(0_u16, |number, digit| 3 * number + u16::from(*digit));
    (number * 256).div_ceil(243) as u8
}

impl EncodeBlock<K_BLOCK> for BlockTq1_0 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let (d, digits) = digits(values);
        let mut block = Self { qs: [0; 48], qh: [0; 4], d: to_half(d) };
        for (m, byte) in block.qs.iter_mut().enumerate() {
            let (first, stride) = if m < 32 { (m, 32) } else { (160 + m - 32, 16) };
            *byte = fraction(std::array::from_fn(|n| digits[first + n * stride]));
        }
        for (j, byte) in block.qh.iter_mut().enumerate() {
            *byte = fraction(std::array::from_fn(|n| if n < 4 { digits[240 + j + 4 * n] } else { 0 }));
        }
        block
    }
}

impl EncodeBlock<K_BLOCK> for BlockTq2_0 {
    #[inline(always)]
    fn encode_block(values: &Values) -> Self {
        let (d, digits) = digits(values);
        let mut qs = [0; K_BLOCK / 4];
        for (m, byte) in qs.iter_mut().enumerate() {
            for n in 0..4 {
                *byte |= digits[m / 32 * 128 + m % 32 + 32 * n] << (2 * n);
            }
        }
        Self { qs, d: to_half(d) }
    }
}
