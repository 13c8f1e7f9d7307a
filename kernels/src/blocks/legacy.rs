//! The formats with blocks of 32 elements: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`.
//!
//! The low nibble of byte `j` is element `j`, the high nibble is element `j + 16`.

use bytemuck::{Pod, Zeroable};

use super::float::half_to_f32;

/// Elements in a block of these formats.
pub const LEGACY_BLOCK: usize = 32;

const HALF_BLOCK: usize = LEGACY_BLOCK / 2;

/// `x = (q - 8) d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Nibbles.
    pub qs: [u8; HALF_BLOCK],
}

/// `x = q d + m`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Minimum, half precision.
    pub m: [u8; 2],
    /// Nibbles.
    pub qs: [u8; HALF_BLOCK],
}

/// `x = (q - 16) d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Fifth bits: bit `j` belongs to element `j`.
    pub qh: [u8; 4],
    /// Nibbles.
    pub qs: [u8; HALF_BLOCK],
}

/// `x = q d + m`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Minimum, half precision.
    pub m: [u8; 2],
    /// Fifth bits: bit `j` belongs to element `j`.
    pub qh: [u8; 4],
    /// Nibbles.
    pub qs: [u8; HALF_BLOCK],
}

/// `x = q d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Signed bytes.
    pub qs: [i8; LEGACY_BLOCK],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18);
const _: () = assert!(size_of::<BlockQ4_1>() == 20);
const _: () = assert!(size_of::<BlockQ5_0>() == 22);
const _: () = assert!(size_of::<BlockQ5_1>() == 24);
const _: () = assert!(size_of::<BlockQ8_0>() == 34);

/// The 32 four-bit numbers of a block. By hand where registers of 16 bytes are always there: loops over nibbles become
/// scattered loads, or no vectors at all.
#[inline(always)]
pub(super) fn four_bits(qs: &[u8; HALF_BLOCK]) -> [u8; LEGACY_BLOCK] {
    let mut numbers = [0; LEGACY_BLOCK];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_srli_epi16, _mm_storeu_si128};
        // SAFETY: 16 bytes are read, and 16 written to each half of 32.
        unsafe {
            let both = _mm_loadu_si128(qs.as_ptr().cast());
            let mask = _mm_set1_epi8(0x0F);
            _mm_storeu_si128(numbers.as_mut_ptr().cast(), _mm_and_si128(both, mask));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(both), mask);
            _mm_storeu_si128(numbers.as_mut_ptr().add(HALF_BLOCK).cast(), high);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (j, q) in qs.iter().enumerate() {
        numbers[j] = q & 0x0F;
        numbers[j + HALF_BLOCK] = q >> 4;
    }
    numbers
}

#[inline(always)]
pub(super) fn decode_q4_0(blocks: &[BlockQ4_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (value, q) in out.iter_mut().zip(four_bits(&block.qs)) {
            *value = (i32::from(q) - 8) as f32 * d;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q4_1(blocks: &[BlockQ4_1], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let (d, m) = (half_to_f32(block.d), half_to_f32(block.m));
        for (value, q) in out.iter_mut().zip(four_bits(&block.qs)) {
            *value = f32::from(q) * d + m;
        }
    }
}

/// The 32 five-bit numbers of a block.
#[inline(always)]
fn five_bits(qs: &[u8; HALF_BLOCK], qh: [u8; 4]) -> [i32; LEGACY_BLOCK] {
    let qh = u32::from_le_bytes(qh);
    let mut numbers = [0; LEGACY_BLOCK];
    for j in 0..HALF_BLOCK {
        numbers[j] = i32::from(qs[j] & 0x0F) | (((qh >> j) & 1) << 4) as i32;
        numbers[j + HALF_BLOCK] = i32::from(qs[j] >> 4) | (((qh >> (j + HALF_BLOCK)) & 1) << 4) as i32;
    }
    numbers
}

#[inline(always)]
pub(super) fn decode_q5_0(blocks: &[BlockQ5_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (value, q) in out.iter_mut().zip(five_bits(&block.qs, block.qh)) {
            *value = (q - 16) as f32 * d;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q5_1(blocks: &[BlockQ5_1], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let (d, m) = (half_to_f32(block.d), half_to_f32(block.m));
        for (value, q) in out.iter_mut().zip(five_bits(&block.qs, block.qh)) {
            *value = q as f32 * d + m;
        }
    }
}

#[inline(always)]
pub(super) fn decode_q8_0(blocks: &[BlockQ8_0], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (value, q) in out.iter_mut().zip(block.qs) {
            *value = f32::from(q) * d;
        }
    }
}
