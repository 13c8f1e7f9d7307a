//! Rounding of f32 to bf16: nearest, ties to even, subnormal inputs to zero, NaN kept quiet.
//!
//! This is what `VCVTNE2PS2BF16` does (Intel SDM: it ignores MXCSR and treats subnormal inputs as zero); the integer
//! form gives the same bits everywhere else.

// Plain loops are compiled anew for each set of target features, which needs their bodies in the callers.
#![allow(clippy::inline_always)]

use half::bf16;

use super::kernel::GROUP;
use crate::buffer::Line;
use crate::panels::PANEL;

/// A function of plain loops, compiled once more for the wider registers of a CPU that has them.
macro_rules! vectorised {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),*) $body:block) => {
        $(#[$doc])*
        $visibility fn $name($($argument: $type),*) {
            #[inline(always)]
            fn plain($($argument: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
                fn avx512($($argument: $type),*) {
                    plain($($argument),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    plain($($argument),*);
                }
                use std::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") {
                    // SAFETY: the CPU has the features.
                    unsafe { avx512($($argument),*) };
                    return;
                }
                if has!("avx2") {
                    // SAFETY: the CPU has the feature.
                    unsafe { avx2($($argument),*) };
                    return;
                }
            }
            plain($($argument),*);
        }
    };
}

/// The bf16 bits of one value.
#[inline(always)]
pub(crate) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let chosen = if magnitude > 0x7f80_0000 { quiet } else { rounded };
    let sign = (bits >> 16) & 0x8000;
    (if magnitude < 0x0080_0000 { sign } else { chosen }) as u16
}

/// Rounds a row: `target[i] = bf16(source[i])`, the rest of `target` becomes zero.
///
/// # Panics
/// If `target` is shorter than `source`.
pub(crate) fn round_row(source: &[f32], target: &mut [u16]) {
    let (values, padding) = target.split_at_mut(source.len());
    padding.fill(0);
    round_rows(std::iter::once((source, values)));
}

/// Rounds rows into targets of their length.
///
/// # Panics
/// If a target has another length than its row.
pub(super) fn round_rows<'a>(rows: impl Iterator<Item = (&'a [f32], &'a mut [u16])>) {
    #[cfg(target_arch = "x86_64")]
    if avx512bf16::is_there() {
        // SAFETY: the CPU has both features.
        unsafe { avx512bf16::round_rows(rows) };
        return;
    }
    for (source, target) in rows {
        assert_eq!(source.len(), target.len(), "round_rows: a target of another length");
        for (value, &x) in target.iter_mut().zip(source) {
            *value = bf16_bits(x);
        }
    }
}

/// Rounds a row to bf16 and widens it again; the rest of `target` becomes zero.
///
/// # Panics
/// If `target` is shorter than `source`.
pub(crate) fn round_row_widened(source: &[f32], target: &mut [f32]) {
    let (values, padding) = target.split_at_mut(source.len());
    padding.fill(0.0);
    for (value, &x) in values.iter_mut().zip(source) {
        *value = f32::from_bits(u32::from(bf16_bits(x)) << 16);
    }
}

/// Rounds 32 values a line, into every `step`-th of `lines`.
pub(super) fn round_chunks(chunks: &[f32], lines: &mut [Line], step: usize) {
    #[cfg(target_arch = "x86_64")]
    if avx512bf16::is_there() {
        // SAFETY: the CPU has both features.
        unsafe { avx512bf16::round_chunks(chunks, lines, step) };
        return;
    }
    for (group, values) in chunks.chunks_exact(2 * GROUP).enumerate() {
        round_row(values, bytemuck::cast_slice_mut(&mut lines[group * step].0));
    }
}

vectorised! {
    /// Rounds and widens 16 values a line, into every `step`-th of `lines`.
    pub(super) fn widen_chunks(chunks: &[f32], lines: &mut [Line], step: usize) {
        for (group, values) in chunks.chunks_exact(GROUP).enumerate() {
            let line = &mut lines[group * step].0;
            for (word, &x) in line.iter_mut().zip(values) {
                *word = u32::from(bf16_bits(x)) << 16;
            }
        }
    }
}

/// Rounds two inputs of a panel's outputs to pairs, the even one in the low half.
pub(crate) fn round_pairs(even: &[f32; PANEL], odd: &[f32; PANEL], words: &mut [u32; PANEL]) {
    #[cfg(target_arch = "x86_64")]
    if avx512bf16::is_there() {
        // SAFETY: the CPU has the features.
        unsafe { avx512bf16::round_pairs(even, odd, words) };
        return;
    }
    pair_up(even, odd, words);
}

vectorised! {
    fn pair_up(even: &[f32; PANEL], odd: &[f32; PANEL], words: &mut [u32; PANEL]) {
        for (word, (even, odd)) in words.iter_mut().zip(even.iter().zip(odd)) {
            *word = u32::from(bf16_bits(*even)) | u32::from(bf16_bits(*odd)) << 16;
        }
    }
}

vectorised! {
    /// Joins pairs of rows, `columns` bf16 each, to words of a panel: its outputs start at column `first` of the rows.
    pub(super) fn join_rows(rows: &[bf16], columns: usize, first: usize, words: &mut [[u32; PANEL]]) {
        for (words, rows) in words.iter_mut().zip(rows.chunks_exact(2 * columns)) {
            let (even, odd) = (&rows[first..][..PANEL], &rows[columns + first..][..PANEL]);
            for (word, (even, odd)) in words.iter_mut().zip(even.iter().zip(odd)) {
                *word = u32::from(even.to_bits()) | u32::from(odd.to_bits()) << 16;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512bf16 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi16,
        _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16, _mm512_storeu_si512,
    };

    use super::PANEL;
    use crate::buffer::Line;

    /// Whether this CPU has what the functions here are compiled for.
    pub(super) fn is_there() -> bool {
        use std::is_x86_feature_detected as has;
        has!("avx512f") && has!("avx512bw") && has!("avx512bf16")
    }

    /// The 16-bit places 0, 16, 1, 17 and so on: two halves side by side become pairs.
    static PAIRS: [u16; PANEL] = {
        let mut places = [0; PANEL];
        let mut place = 0;
        while place < PANEL {
            places[place] = (place / 2 + place % 2 * (PANEL / 2)) as u16;
            place += 1;
        }
        places
    };

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn round_pairs(even: &[f32; PANEL], odd: &[f32; PANEL], words: &mut [u32; PANEL]) {
        for half in [0, PANEL / 2] {
            // SAFETY: 16 values from a half on lie inside the arrays, as 32 places do inside theirs.
            unsafe {
                let (even, odd) = (_mm512_loadu_ps(even.as_ptr().add(half)), _mm512_loadu_ps(odd.as_ptr().add(half)));
                let places = _mm512_loadu_si512(PAIRS.as_ptr().cast());
                let pairs = _mm512_permutexvar_epi16(places, bits(_mm512_cvtne2ps_pbh(odd, even)));
                _mm512_storeu_si512(words.as_mut_ptr().add(half).cast(), pairs);
            }
        }
    }

    /// Rounds 32 values into every `step`-th line.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn round_chunks(chunks: &[f32], lines: &mut [Line], step: usize) {
        for (group, values) in chunks.chunks_exact(32).enumerate() {
            let line = &mut lines[group * step];
            // SAFETY: a chunk has 32 values, a line 64 bytes.
            unsafe {
                let low = _mm512_loadu_ps(values.as_ptr());
                let high = _mm512_loadu_ps(values.as_ptr().add(16));
                _mm512_storeu_si512(line.0.as_mut_ptr().cast(), bits(_mm512_cvtne2ps_pbh(high, low)));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn round_rows<'a>(rows: impl Iterator<Item = (&'a [f32], &'a mut [u16])>) {
        for (source, target) in rows {
            round(source, target);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    fn round(source: &[f32], target: &mut [u16]) {
        assert_eq!(source.len(), target.len(), "round_rows: a target of another length");
        let (s, t) = (source.as_ptr(), target.as_mut_ptr());
        let whole = source.len() / 32 * 32;
        for i in (0..whole).step_by(32) {
            // SAFETY: i + 32 <= the length of both slices.
            unsafe {
                let pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(s.add(i + 16)), _mm512_loadu_ps(s.add(i)));
                _mm512_storeu_si512(t.add(i).cast(), bits(pairs));
            }
        }
        let rest = source.len() - whole;
        if rest > 0 {
            let mask = u32::MAX >> (32 - rest);
            // SAFETY: the masks leave exactly the `rest` elements that both slices still have.
            unsafe {
                let low = _mm512_maskz_loadu_ps(mask as u16, s.add(whole));
                let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, s.wrapping_add(whole + 16));
                _mm512_mask_storeu_epi16(t.add(whole).cast(), mask, bits(_mm512_cvtne2ps_pbh(high, low)));
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn bits(pairs: __m512bh) -> __m512i {
        // SAFETY: both are 512 plain bits.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(pairs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even_and_special_values_survive() {
        assert_eq!(bf16_bits(1.0), 0x3f80);
        assert_eq!(bf16_bits(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(bf16_bits(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(bf16_bits(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(bf16_bits(f32::INFINITY), 0x7f80);
        assert_eq!(bf16_bits(f32::MAX), 0x7f80);
        assert_eq!(bf16_bits(-0.0), 0x8000);
        assert_eq!(bf16_bits(f32::from_bits(0x0000_ffff)), 0);
        assert_eq!(bf16_bits(f32::from_bits(0x807f_ffff)), 0x8000);
        assert!(f32::from_bits(u32::from(bf16_bits(f32::from_bits(0x7f80_0001))) << 16).is_nan());
    }

    /// The vector path, whichever this CPU takes, gives the bits of the integer formula on patterns of every kind.
    #[test]
    fn rows_equal_single_values_in_every_length() {
        let mut state = 1_u32;
        let mut patterns: Vec<f32> = [0, 1, 0x7f_ffff, 0x80_0000, 0x7f80_0000, 0x7f80_0001, 0xffc0_1234, 0x3f80_8000]
            .map(f32::from_bits)
            .to_vec();
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            patterns.push(f32::from_bits(state));
        }
        for length in (0..80).chain([patterns.len()]) {
            let mut rounded = vec![7_u16; length + 5];
            round_row(&patterns[..length], &mut rounded);
            let mut widened = vec![7.0_f32; length + 5];
            round_row_widened(&patterns[..length], &mut widened);
            for i in 0..length + 5 {
                let expected = if i < length { bf16_bits(patterns[i]) } else { 0 };
                assert_eq!(rounded[i], expected, "value {i} of {length}: {:#x}", patterns[i].to_bits());
                assert_eq!(widened[i].to_bits(), u32::from(expected) << 16);
            }
        }
    }
}
