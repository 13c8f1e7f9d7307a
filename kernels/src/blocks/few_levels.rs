//! The formats of two to four levels with one scale: `TQ1_0` and `TQ2_0` (three levels), `Q1_0` (two), `Q2_0` (four).

use bytemuck::{Pod, Zeroable};

use super::float::half_to_f32;
use super::{K_BLOCK, Q1_0_BLOCK, Q2_0_BLOCK};

/// `x = d (q - 1)`, five elements in a byte.
///
/// A byte is the fraction `0.q0 q1 q2 q3 q4` in base three, rounded up to 256ths: the next digit is what a product with
/// three carries.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockTq1_0 {
    /// Digits of elements 0 to 239: byte `m` of the first 32 holds elements `m + 32 n`, byte `m` of the other 16 elements
    /// `160 + m + 16 n`.
    pub qs: [u8; 48],
    /// Digits of the last 16 elements: byte `j` holds elements `240 + j + 4 n`, four of them.
    pub qh: [u8; 4],
    /// Scale, half precision.
    pub d: [u8; 2],
}

/// `x = d (q - 1)`, four elements in a byte.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockTq2_0 {
    /// Two bits an element: byte `m` of a half block holds elements `m + 32 n`.
    pub qs: [u8; K_BLOCK / 4],
    /// Scale, half precision.
    pub d: [u8; 2],
}

/// `x = +-d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ1_0 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Set where the element is positive.
    pub qs: [u8; Q1_0_BLOCK / 8],
}

/// `x = d (q - 1)` with levels -1 to 2.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2_0 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Two bits an element, four consecutive elements in a byte.
    pub qs: [u8; Q2_0_BLOCK / 4],
}

const _: () = assert!(size_of::<BlockTq1_0>() == 54);
const _: () = assert!(size_of::<BlockTq2_0>() == 66);
const _: () = assert!(size_of::<BlockQ1_0>() == 18);
const _: () = assert!(size_of::<BlockQ2_0>() == 18);

/// Powers of three, which bring the digits of a byte to its front.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Digit `n` of `W` bytes into `W` consecutive elements, for each `n`.
#[inline(always)]
fn decode_digits<const W: usize>(bytes: &[u8; W], d: f32, out: &mut [f32]) {
    for (out, power) in out.as_chunks_mut::<W>().0.iter_mut().zip(POWERS) {
        for (value, byte) in out.iter_mut().zip(bytes) {
            let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            *value = (f32::from(digit) - 1.0) * d;
        }
    }
}

#[inline(always)]
pub(super) fn decode_tq1_0(blocks: &[BlockTq1_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        let (first, second) = block.qs.split_at(32);
        decode_digits::<32>(&first.as_chunks().0[0], d, &mut out[..160]);
        decode_digits::<16>(&second.as_chunks().0[0], d, &mut out[160..240]);
        decode_digits::<4>(&block.qh, d, &mut out[240..]);
    }
}

#[inline(always)]
pub(super) fn decode_tq2_0(blocks: &[BlockTq2_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (part, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (value, q) in out.iter_mut().zip(&block.qs[part / 4 * 32..]) {
                *value = (f32::from(q >> (part % 4 * 2) & 3) - 1.0) * d;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_q1_0(blocks: &[BlockQ1_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<Q1_0_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (j, value) in out.iter_mut().enumerate() {
            *value = if block.qs[j / 8] >> (j % 8) & 1 == 1 { d } else { -d };
        }
    }
}

#[inline(always)]
pub(super) fn decode_q2_0(blocks: &[BlockQ2_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<Q2_0_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (j, value) in out.iter_mut().enumerate() {
            *value = (f32::from(block.qs[j / 4] >> (j % 4 * 2) & 3) - 1.0) * d;
        }
    }
}
