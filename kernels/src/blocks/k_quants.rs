//! The formats with blocks of 256 elements, in groups of 16 or 32 whose scales are themselves quantized: `Q2_K`,
//! `Q3_K`, `Q4_K`, `Q5_K`, `Q6_K`.

use bytemuck::{Pod, Zeroable};

use super::float::half_to_f32;

/// Elements in a block of these formats.
pub const K_BLOCK: usize = 256;

/// `x = d sc q - dmin m` with 4-bit `sc`, `m` for each 16 elements and 2-bit `q`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Scale (low nibble) and minimum (high nibble) of each group of 16.
    pub scales: [u8; K_BLOCK / 16],
    /// Two bits an element: byte `l` of a half block holds elements `l`, `l + 32`, `l + 64`, `l + 96`.
    pub qs: [u8; K_BLOCK / 4],
    /// Scale of the scales, half precision.
    pub d: [u8; 2],
    /// Scale of the minima, half precision.
    pub dmin: [u8; 2],
}

/// `x = d (sc - 32) (q - 4)` with 6-bit `sc` for each 16 elements and 3-bit `q`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Third bits: bit `i` of byte `l` belongs to element `32 i + l`.
    pub hmask: [u8; K_BLOCK / 8],
    /// Low two bits, in the order of [`BlockQ2K::qs`].
    pub qs: [u8; K_BLOCK / 4],
    /// Sixteen 6-bit scales: low nibbles in bytes 0..8, high bit pairs in bytes 8..12.
    pub scales: [u8; 12],
    /// Scale of the scales, half precision.
    pub d: [u8; 2],
}

/// `x = d sc q - dmin m` with 6-bit `sc`, `m` for each 32 elements and 4-bit `q`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales, half precision.
    pub d: [u8; 2],
    /// Scale of the minima, half precision.
    pub dmin: [u8; 2],
    /// Eight 6-bit scales and eight 6-bit minima, see [`scale_and_minimum`].
    pub scales: [u8; 12],
    /// Nibbles: byte `l` of a quarter block holds elements `l` and `l + 32`.
    pub qs: [u8; K_BLOCK / 2],
}

/// `x = d sc q - dmin m` with 6-bit `sc`, `m` for each 32 elements and 5-bit `q`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales, half precision.
    pub d: [u8; 2],
    /// Scale of the minima, half precision.
    pub dmin: [u8; 2],
    /// Eight 6-bit scales and eight 6-bit minima, see [`scale_and_minimum`].
    pub scales: [u8; 12],
    /// Fifth bits: bit `i` of byte `l` belongs to element `32 i + l`.
    pub qh: [u8; K_BLOCK / 8],
    /// Low nibbles, in the order of [`BlockQ4K::qs`].
    pub qs: [u8; K_BLOCK / 2],
}

/// `x = d sc (q - 32)` with signed 8-bit `sc` for each 16 elements and 6-bit `q`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low nibbles: byte `l` of a half block holds elements `l` and `l + 64`.
    pub ql: [u8; K_BLOCK / 2],
    /// High bit pairs, in the order of [`BlockQ2K::qs`].
    pub qh: [u8; K_BLOCK / 4],
    /// Scale of each group of 16.
    pub scales: [i8; K_BLOCK / 16],
    /// Scale of the scales, half precision.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ2K>() == 84);
const _: () = assert!(size_of::<BlockQ3K>() == 110);
const _: () = assert!(size_of::<BlockQ4K>() == 144);
const _: () = assert!(size_of::<BlockQ5K>() == 176);
const _: () = assert!(size_of::<BlockQ6K>() == 210);

/// The 6-bit scale and minimum of group `group` (0..8) of [`BlockQ4K`] and [`BlockQ5K`].
///
/// Groups 0..4 lie in the low six bits of bytes `group` (scale) and `group + 4` (minimum). Groups 4..8 have their low
/// nibbles in byte `group + 4` (scale low, minimum high) and their high bit pairs on top of bytes `group - 4` and
/// `group`.
#[inline]
pub fn scale_and_minimum(scales: &[u8; 12], group: usize) -> (u8, u8) {
    if group < 4 {
        (scales[group] & 63, scales[group + 4] & 63)
    } else {
        (
            (scales[group + 4] & 0x0F) | ((scales[group - 4] >> 6) << 4),
            (scales[group + 4] >> 4) | ((scales[group] >> 6) << 4),
        )
    }
}

#[inline(always)]
pub(super) fn decode_q2_k(blocks: &[BlockQ2K], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let (d, dmin) = (half_to_f32(block.d), half_to_f32(block.dmin));
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (half, shift) = (group / 8, group % 8 / 2 * 2);
            let qs = &block.qs[half * 32 + group % 2 * 16..][..16];
            let scale = d * f32::from(block.scales[group] & 0x0F);
            let minimum = dmin * f32::from(block.scales[group] >> 4);
            for (value, q) in out.iter_mut().zip(qs) {
                *value = scale * f32::from((q >> shift) & 3) - minimum;
            }
        }
    }
}

/// The sixteen scales of a `Q3_K` block, less their offset of 32.
#[inline(always)]
fn q3_k_scales(packed: &[u8; 12]) -> [i32; 16] {
    std::array::from_fn(|group| {
        let low = (packed[group % 8] >> (group / 8 * 4)) & 0x0F;
        let high = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
        i32::from(low | (high << 4)) - 32
    })
}

#[inline(always)]
pub(super) fn decode_q3_k(blocks: &[BlockQ3K], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        let scales = q3_k_scales(&block.scales);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (half, shift, bit) = (group / 8, group % 8 / 2 * 2, group / 2);
            let qs = &block.qs[half * 32 + group % 2 * 16..][..16];
            let hmask = &block.hmask[group % 2 * 16..][..16];
            let scale = d * scales[group] as f32;
            for ((value, q), high) in out.iter_mut().zip(qs).zip(hmask) {
                let q = i32::from(((q >> shift) & 3) | (((high >> bit) & 1) << 2)) - 4;
                *value = scale * q as f32;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_q4_k(blocks: &[BlockQ4K], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let (d, dmin) = (half_to_f32(block.d), half_to_f32(block.dmin));
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (sc, m) = scale_and_minimum(&block.scales, group);
            let (scale, minimum) = (d * f32::from(sc), dmin * f32::from(m));
            let (qs, shift) = (&block.qs[group / 2 * 32..][..32], group % 2 * 4);
            for (value, q) in out.iter_mut().zip(qs) {
                *value = scale * f32::from((q >> shift) & 0x0F) - minimum;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_q5_k(blocks: &[BlockQ5K], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let (d, dmin) = (half_to_f32(block.d), half_to_f32(block.dmin));
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (sc, m) = scale_and_minimum(&block.scales, group);
            let (scale, minimum) = (d * f32::from(sc), dmin * f32::from(m));
            let (qs, shift) = (&block.qs[group / 2 * 32..][..32], group % 2 * 4);
            for ((value, q), high) in out.iter_mut().zip(qs).zip(block.qh) {
                let q = ((q >> shift) & 0x0F) | (((high >> group) & 1) << 4);
                *value = scale * f32::from(q) - minimum;
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_q6_k(blocks: &[BlockQ6K], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        let halves = block.ql.as_chunks::<64>().0.iter().zip(block.qh.as_chunks::<32>().0);
        for ((out, (ql, qh)), scales) in
            out.as_chunks_mut::<128>().0.iter_mut().zip(halves).zip(block.scales.as_chunks::<8>().0)
        {
            for (quarter, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let ql = &ql[quarter % 2 * 32..][..32];
                let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
                let scales: [f32; 2] = std::array::from_fn(|side| d * f32::from(scales[2 * quarter + side]));
                for l in 0..32 {
                    // In words: shifts of bytes are slow.
                    let low = (u32::from(ql[l]) >> low_shift) & 0x0F;
                    let high = (u32::from(qh[l]) >> high_shift) & 3;
                    out[l] = scales[l / 16] * ((low | (high << 4)).cast_signed() - 32) as f32;
                }
            }
        }
    }
}
