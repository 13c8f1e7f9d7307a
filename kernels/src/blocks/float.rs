//! Plain floats of 32 and 16 bits.

/// Copies little-endian `f32`.
#[inline(always)]
pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*raw);
    }
}

/// Widens IEEE half precision; exact, subnormals included.
#[inline(always)]
pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = half_to_f32(*raw);
    }
}

/// Widens bfloat16; exact.
#[inline(always)]
pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*raw)) << 16);
    }
}

/// The value of two little-endian bytes of half precision.
///
/// Without branches, so that loops become vectors: a normal number gets the larger exponent bias, a subnormal one is
/// the difference of two normal numbers, infinities and NaN get the largest exponent.
#[inline(always)]
pub(crate) fn half_to_f32(raw: [u8; 2]) -> f32 {
    const BIAS: u32 = (127 - 15) << 23;
    const EXPONENT: u32 = 0x1F << 23;
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    let bits = u32::from(u16::from_le_bytes(raw));
    let magnitude = (bits & 0x7FFF) << 13;
    let exponent = magnitude & EXPONENT;
    let normal = magnitude + BIAS;
    let special = magnitude + BIAS + BIAS;
    let subnormal = (f32::from_bits(magnitude | SMALLEST_NORMAL) - f32::from_bits(SMALLEST_NORMAL)).to_bits();
    let value = if exponent == 0 {
        subnormal
    } else if exponent == EXPONENT {
        special
    } else {
        normal
    };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (value, truth) = (half_to_f32(bits.to_le_bytes()), f16::from_bits(bits).to_f32());
            if truth.is_nan() {
                assert!(value.is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(value.to_bits(), truth.to_bits(), "{bits:#06x}");
            }
        }
    }
}
