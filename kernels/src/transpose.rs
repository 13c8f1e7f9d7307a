//! Transposition of 32-bit words, the movement behind every packing.

/// `target[c * target_stride + r] = source[r * source_stride + c]` for `rows` x `columns` words.
///
/// # Panics
/// If a slice is too short for its stride.
pub(crate) fn transpose(
    source: &[u32],
    source_stride: usize,
    rows: usize,
    columns: usize,
    target: &mut [u32],
    target_stride: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(source.len() >= (rows - 1) * source_stride + columns, "transpose: source is too short");
    assert!(target.len() >= (columns - 1) * target_stride + rows, "transpose: target is too short");
    #[cfg(target_arch = "x86_64")]
    let wide = std::is_x86_feature_detected!("avx512f");
    for r0 in (0..rows).step_by(16) {
        let r1 = rows.min(r0 + 16);
        for c0 in (0..columns).step_by(16) {
            let c1 = columns.min(c0 + 16);
            #[cfg(target_arch = "x86_64")]
            if wide && r1 - r0 == 16 && c1 - c0 == 16 {
                // SAFETY: the CPU has AVX-512 F and the 16 x 16 block lies inside both slices, as asserted above.
                unsafe {
                    avx512::block(
                        source.as_ptr().add(r0 * source_stride + c0),
                        source_stride,
                        target.as_mut_ptr().add(c0 * target_stride + r0),
                        target_stride,
                    );
                }
                continue;
            }
            for c in c0..c1 {
                for r in r0..r1 {
                    target[c * target_stride + r] = source[r * source_stride + c];
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32,
        _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };

    /// Transposes 16 x 16 words: pairs of words, pairs of pairs, then two rounds of whole 128-bit lanes.
    ///
    /// # Safety
    /// AVX-512 F; 16 rows of 16 words readable at `source`, writable at `target`, at their strides (in words).
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn block(source: *const u32, source_stride: usize, target: *mut u32, target_stride: usize) {
        // SAFETY: the caller grants the reads.
        let r: [__m512i; 16] =
            std::array::from_fn(|i| unsafe { _mm512_loadu_si512(source.add(i * source_stride).cast()) });
        // t[4g + j]: lane l holds column 4l + j of rows 4g..4g + 4.
        let mut t = r;
        for g in 0..4 {
            let low01 = _mm512_unpacklo_epi32(r[4 * g], r[4 * g + 1]);
            let high01 = _mm512_unpackhi_epi32(r[4 * g], r[4 * g + 1]);
            let low23 = _mm512_unpacklo_epi32(r[4 * g + 2], r[4 * g + 3]);
            let high23 = _mm512_unpackhi_epi32(r[4 * g + 2], r[4 * g + 3]);
            t[4 * g] = _mm512_unpacklo_epi64(low01, low23);
            t[4 * g + 1] = _mm512_unpackhi_epi64(low01, low23);
            t[4 * g + 2] = _mm512_unpacklo_epi64(high01, high23);
            t[4 * g + 3] = _mm512_unpackhi_epi64(high01, high23);
        }
        for j in 0..4 {
            // Lanes 0 and 2, then 1 and 3, of two row groups side by side.
            let even01 = _mm512_shuffle_i32x4::<0x88>(t[j], t[4 + j]);
            let odd01 = _mm512_shuffle_i32x4::<0xdd>(t[j], t[4 + j]);
            let even23 = _mm512_shuffle_i32x4::<0x88>(t[8 + j], t[12 + j]);
            let odd23 = _mm512_shuffle_i32x4::<0xdd>(t[8 + j], t[12 + j]);
            let columns = [
                (j, _mm512_shuffle_i32x4::<0x88>(even01, even23)),
                (4 + j, _mm512_shuffle_i32x4::<0x88>(odd01, odd23)),
                (8 + j, _mm512_shuffle_i32x4::<0xdd>(even01, even23)),
                (12 + j, _mm512_shuffle_i32x4::<0xdd>(odd01, odd23)),
            ];
            for (column, value) in columns {
                // SAFETY: the caller grants the writes.
                unsafe { _mm512_storeu_si512(target.add(column * target_stride).cast(), value) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_lands_at_its_transposed_place() {
        for (rows, columns) in [(1, 1), (16, 16), (17, 33), (32, 48), (5, 40), (40, 3)] {
            let (source_stride, target_stride) = (columns + 3, rows + 2);
            let source: Vec<u32> = (0..rows * source_stride).map(|i| i as u32).collect();
            let mut target = vec![u32::MAX; columns * target_stride];
            transpose(&source, source_stride, rows, columns, &mut target, target_stride);
            for c in 0..columns {
                for r in 0..target_stride {
                    let expected = if r < rows { source[r * source_stride + c] } else { u32::MAX };
                    assert_eq!(target[c * target_stride + r], expected, "row {r}, column {c} of {rows} x {columns}");
                }
            }
        }
    }
}
