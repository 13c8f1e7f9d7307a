//! Plain floats of 32 and 16 bits.

use half::bf16;
use half::slice::HalfFloatSliceExt;

/// Copies little-endian `f32`.
pub(super) fn encode_f32(values: &[f32], out: &mut [u8]) -> Option<usize> {
    for (raw, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *raw = value.to_le_bytes();
    }
    None
}

/// Nearest even half precision; gives the first element that becomes infinite.
pub(super) fn encode_f16(values: &[f32], out: &mut [u8]) -> Option<usize> {
    let mut halves = [half::f16::ZERO; 512];
    let mut overflow = None;
    for (chunk, (values, out)) in values.chunks(halves.len()).zip(out.chunks_mut(2 * halves.len())).enumerate() {
        let halves = &mut halves[..values.len()];
        halves.convert_from_f32_slice(values);
        for (index, (raw, value)) in out.as_chunks_mut::<2>().0.iter_mut().zip(&*halves).enumerate() {
            *raw = value.to_le_bytes();
            if !value.is_finite() && overflow.is_none() {
                overflow = Some(chunk * 512 + index);
            }
        }
    }
    overflow
}

/// Nearest even bfloat16; gives the first element that becomes infinite.
pub(super) fn encode_bf16(values: &[f32], out: &mut [u8]) -> Option<usize> {
    let mut overflow = None;
    for (index, (raw, value)) in out.as_chunks_mut::<2>().0.iter_mut().zip(values).enumerate() {
        let rounded = bf16::from_f32(*value);
        *raw = rounded.to_le_bytes();
        if !rounded.is_finite() && overflow.is_none() {
            overflow = Some(index);
        }
    }
    overflow
}
