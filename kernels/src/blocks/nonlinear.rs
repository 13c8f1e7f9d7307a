//! The formats whose levels are unevenly spaced: `IQ4_NL` and `IQ4_XS` with sixteen levels between -127 and 113, `MXFP4`
//! and `NVFP4` with the floats of four bits.

use bytemuck::{Pod, Zeroable};

use super::float::half_to_f32;
use super::legacy::{LEGACY_BLOCK, four_bits};
use super::{K_BLOCK, NVFP4_BLOCK};

/// `x = d level`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale, half precision.
    pub d: [u8; 2],
    /// Indices of [`NONLINEAR_LEVELS`]: byte `j` holds elements `j` and `j + 16`.
    pub qs: [u8; LEGACY_BLOCK / 2],
}

/// `x = d (sc - 32) level`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs {
    /// Scale of the scales, half precision.
    pub d: [u8; 2],
    /// Two high bits of the scale of each group of 32.
    pub scales_h: [u8; 2],
    /// Four low bits of the scales.
    pub scales_l: [u8; K_BLOCK / 64],
    /// Indices of [`NONLINEAR_LEVELS`], in each group of 32 as in [`BlockIq4Nl::qs`].
    pub qs: [[u8; LEGACY_BLOCK / 2]; K_BLOCK / 32],
}

/// `x = 2^(e - 128) level`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMxfp4 {
    /// Exponent of the scale (E8M0).
    pub e: u8,
    /// Indices of [`FLOAT_LEVELS`]: byte `j` holds elements `j` and `j + 16`.
    pub qs: [u8; LEGACY_BLOCK / 2],
}

/// `x = d level / 2`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BlockNvfp4 {
    /// Scale of each group of 16: a float of four bits of exponent and three of mantissa (UE4M3).
    pub d: [u8; NVFP4_BLOCK / 16],
    /// Indices of [`FLOAT_LEVELS`]: byte `j` of a group holds elements `j` and `j + 8`.
    pub qs: [[u8; 8]; NVFP4_BLOCK / 16],
}

const _: () = assert!(size_of::<BlockIq4Nl>() == 18);
const _: () = assert!(size_of::<BlockIq4Xs>() == 136);
const _: () = assert!(size_of::<BlockMxfp4>() == 17);
const _: () = assert!(size_of::<BlockNvfp4>() == 36);

/// Levels of `IQ4_NL` and `IQ4_XS`.
pub const NONLINEAR_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the floats of one sign, two exponent and one mantissa bit (E2M1).
pub const FLOAT_LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the scale `2^(e - 127)`, to go with levels that are doubled.
#[inline(always)]
pub fn half_of_exponent_scale(e: u8) -> f32 {
    // The two smallest are subnormal.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// Half of the scale that an unsigned float of four exponent and three mantissa bits stands for; its NaN counts as 0.
#[inline(always)]
fn half_of_ue4m3(bits: u8) -> f32 {
    if bits == 0x7F {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(bits >> 3 & 0x0F), f32::from(bits & 7));
    if exponent == 0 {
        mantissa / 1024.0
    } else {
        // 2^(exponent - 7), halved.
        (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 127 - 8) << 23)
    }
}

#[inline(always)]
pub(super) fn decode_iq4_nl(blocks: &[BlockIq4Nl], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let d = half_to_f32(block.d);
        for (value, q) in out.iter_mut().zip(four_bits(&block.qs)) {
            *value = d * f32::from(NONLINEAR_LEVELS[usize::from(q)]);
        }
    }
}

#[inline(always)]
pub(super) fn decode_iq4_xs(blocks: &[BlockIq4Xs], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<K_BLOCK>().0) {
        let d = half_to_f32(block.d);
        let high = u16::from_le_bytes(block.scales_h);
        for (group, (qs, out)) in block.qs.iter().zip(out.as_chunks_mut::<32>().0).enumerate() {
            let low = block.scales_l[group / 2] >> (group % 2 * 4) & 0x0F;
            let sc = u16::from(low) | (high >> (2 * group) & 3) << 4;
            let scale = d * (f32::from(sc) - 32.0);
            for (value, q) in out.iter_mut().zip(four_bits(qs)) {
                *value = scale * f32::from(NONLINEAR_LEVELS[usize::from(q)]);
            }
        }
    }
}

#[inline(always)]
pub(super) fn decode_mxfp4(blocks: &[BlockMxfp4], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<LEGACY_BLOCK>().0) {
        let scale = half_of_exponent_scale(block.e);
        for (value, q) in out.iter_mut().zip(four_bits(&block.qs)) {
            *value = f32::from(FLOAT_LEVELS[usize::from(q)]) * scale;
        }
    }
}

#[inline(always)]
pub(super) fn decode_nvfp4(blocks: &[BlockNvfp4], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<NVFP4_BLOCK>().0) {
        for ((d, qs), out) in block.d.iter().zip(&block.qs).zip(out.as_chunks_mut::<16>().0) {
            let scale = half_of_ue4m3(*d);
            for (j, q) in qs.iter().enumerate() {
                out[j] = f32::from(FLOAT_LEVELS[usize::from(q & 0x0F)]) * scale;
                out[j + 8] = f32::from(FLOAT_LEVELS[usize::from(q >> 4)]) * scale;
            }
        }
    }
}
