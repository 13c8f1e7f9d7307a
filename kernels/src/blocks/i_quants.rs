//! The formats whose groups of four or eight elements are points of a table: `IQ1_S`, `IQ1_M`, `IQ2_XXS`, `IQ2_XS`,
//! `IQ2_S`, `IQ3_XXS`, `IQ3_S`, all with blocks of 256. They are read, not written.

use bytemuck::{Pod, Zeroable};

use super::K_BLOCK;
use super::float::half_to_f32;
use super::grids;

/// `x = d (1/2 + sc) / 4 * +-point`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2Xxs {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// For each 32 elements four indices of points, then four times seven signs and in the top four bits the scale.
    pub qs: [[u8; 8]; K_BLOCK / 32],
}

/// `x = d (1/2 + sc) / 4 * +-point`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2Xs {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// For each eight elements nine bits of index and seven signs.
    pub qs: [[u8; 2]; K_BLOCK / 8],
    /// Scale of each group of 16, four bits.
    pub scales: [u8; K_BLOCK / 32],
}

/// `x = d (1/2 + sc) / 4 * +-point`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2S {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// For each eight elements the low bits of the index.
    pub qs: [u8; K_BLOCK / 8],
    /// For each eight elements the signs.
    pub signs: [u8; K_BLOCK / 8],
    /// For each 32 elements two high bits of four indices.
    pub qh: [u8; K_BLOCK / 32],
    /// Scale of each group of 16, four bits.
    pub scales: [u8; K_BLOCK / 32],
}

/// `x = d (1/2 + sc) / 2 * +-point`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq3Xxs {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// For each four elements an index.
    pub qs: [u8; K_BLOCK / 4],
    /// For each 32 elements four times seven signs and in the top four bits the scale.
    pub scales_and_signs: [[u8; 4]; K_BLOCK / 32],
}

/// `x = d (1 + 2 sc) * +-point`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq3S {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// For each four elements the low bits of the index.
    pub qs: [u8; K_BLOCK / 4],
    /// For each 32 elements the high bits of eight indices.
    pub qh: [u8; K_BLOCK / 32],
    /// For each eight elements the signs.
    pub signs: [u8; K_BLOCK / 8],
    /// Scale of each group of 32, four bits.
    pub scales: [u8; K_BLOCK / 64],
}

/// `x = d (1 + 2 sc) (point +- 1/8)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq1S {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// For each eight elements the low bits of the index.
    pub qs: [u8; K_BLOCK / 8],
    /// For each 32 elements three high bits of four indices, three bits of scale, and the sign of the shift.
    pub qh: [[u8; 2]; K_BLOCK / 32],
}

/// `x = d (1 + 2 sc) (point +- 1/8)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq1M {
    /// For each eight elements the low bits of the index.
    pub qs: [u8; K_BLOCK / 8],
    /// For each eight elements three high bits of the index and the sign of the shift.
    pub qh: [u8; K_BLOCK / 16],
    /// In each 16 bits four scales of three bits, and on top four bits of the block's half-precision scale.
    pub scales: [[u8; 2]; K_BLOCK / 64],
}

const _: () = assert!(size_of::<BlockIq2Xxs>() == 66);
const _: () = assert!(size_of::<BlockIq2Xs>() == 74);
const _: () = assert!(size_of::<BlockIq2S>() == 82);
const _: () = assert!(size_of::<BlockIq3Xxs>() == 98);
const _: () = assert!(size_of::<BlockIq3S>() == 110);
const _: () = assert!(size_of::<BlockIq1S>() == 50);
const _: () = assert!(size_of::<BlockIq1M>() == 56);

/// Shift of the one-bit points.
const SHIFT: f32 = 0.125;

/// Eight signs of which seven are stored: the number of those that are set is even.
#[inline(always)]
fn even_signs(seven: u32) -> u8 {
    let seven = seven & 0x7F;
    (seven | (seven.count_ones() & 1) << 7) as u8
}

/// `out = scale * point`, negative where the bit of the element is set; `first` is the bit of the first element.
#[inline(always)]
fn signed<const W: usize>(scale: f32, point: &[i8; W], signs: u8, first: usize, out: &mut [f32]) {
    for (j, (value, level)) in out.iter_mut().zip(point).enumerate() {
        let magnitude = scale * f32::from(*level);
        *value = if signs >> (first + j) & 1 == 1 { -magnitude } else { magnitude };
    }
}

#[inline(always)]
pub(super) fn decode_iq2_xxs(blocks: &[BlockIq2Xxs], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (qs, out) in block.qs.iter().zip(out.as_chunks_mut::<32>().0) {
            let word = u32::from_le_bytes([qs[4], qs[5], qs[6], qs[7]]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                signed(scale, &grids::IQ2_XXS[usize::from(qs[part])], even_signs(word >> (7 * part)), 0, out);
            }
        }
    }
}

/// The two scales of a byte of `IQ2_XS` and `IQ2_S`.
#[inline(always)]
fn quarter_scales(d: f32, scales: u8) -> [f32; 2] {
    [scales & 0x0F, scales >> 4].map(|sc| d * (0.5 + f32::from(sc)) * 0.25)
}

#[inline(always)]
pub(super) fn decode_iq2_xs(blocks: &[BlockIq2Xs], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let scale = quarter_scales(d, block.scales[part / 4])[part % 4 / 2];
            let word = u16::from_le_bytes(block.qs[part]);
            signed(scale, &grids::IQ2_XS[usize::from(word & 511)], even_signs(u32::from(word >> 9)), 0, out);
        }
    }
}

#[inline(always)]
pub(super) fn decode_iq2_s(blocks: &[BlockIq2S], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let scale = quarter_scales(d, block.scales[part / 4])[part % 4 / 2];
            let high = usize::from(block.qh[part / 4] >> (part % 4 * 2) & 3);
            signed(scale, &grids::IQ2_S[usize::from(block.qs[part]) | high << 8], block.signs[part], 0, out);
        }
    }
}

#[inline(always)]
pub(super) fn decode_iq3_xxs(blocks: &[BlockIq3Xxs], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (part, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let word = u32::from_le_bytes(block.scales_and_signs[part / 8]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            let signs = even_signs(word >> (part % 8 / 2 * 7));
            signed(scale, &grids::IQ3_XXS[usize::from(block.qs[part])], signs, part % 2 * 4, out);
        }
    }
}

#[inline(always)]
pub(super) fn decode_iq3_s(blocks: &[BlockIq3S], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (part, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let sc = block.scales[part / 16] >> (part / 8 % 2 * 4) & 0x0F;
            let scale = d * f32::from(1 + 2 * sc);
            let high = usize::from(block.qh[part / 8] >> (part % 8) & 1);
            let point = &grids::IQ3_S[usize::from(block.qs[part]) | high << 8];
            signed(scale, point, block.signs[part / 2], part % 2 * 4, out);
        }
    }
}

/// `out = scale (point +- 1/8)`.
#[inline(always)]
fn shifted(scale: f32, point: &[i8; 8], below: bool, out: &mut [f32; 8]) {
    let shift = if below { -SHIFT } else { SHIFT };
    for (value, level) in out.iter_mut().zip(point) {
        *value = scale * (f32::from(*level) + shift);
    }
}

#[inline(always)]
pub(super) fn decode_iq1_s(blocks: &[BlockIq1S], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let word = u16::from_le_bytes(block.qh[part / 4]);
            let scale = d * f32::from(2 * (word >> 12 & 7) + 1);
            let index = usize::from(block.qs[part]) | usize::from(word >> (part % 4 * 3) & 7) << 8;
            shifted(scale, &grids::IQ1_S[index], word & 0x8000 != 0, out);
        }
    }
}

#[inline(always)]
pub(super) fn decode_iq1_m(blocks: &[BlockIq1M], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let words = block.scales.map(u16::from_le_bytes);
        let half = words[0] >> 12 | words[1] >> 8 & 0x00F0 | words[2] >> 4 & 0x0F00 | words[3] & 0xF000;
        let d = half_to_f32(half.to_le_bytes());
        for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let sc = words[part / 8] >> (part / 2 % 4 * 3) & 7;
            let scale = d * f32::from(2 * sc + 1);
            let nibble = block.qh[part / 2] >> (part % 2 * 4);
            let index = usize::from(block.qs[part]) | usize::from(nibble & 7) << 8;
            shifted(scale, &grids::IQ1_S[index], nibble & 8 != 0, out);
        }
    }
}
