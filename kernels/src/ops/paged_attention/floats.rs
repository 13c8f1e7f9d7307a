//! Keys and values as f32: keys `[depth][position]`, values `[position][element]`.

use super::PAGE_POSITIONS;

/// Writes rows of keys or values into the words of their page, at their slot.
pub(super) fn put_rows<'a>(rows: impl Iterator<Item = (&'a mut [u32], usize, &'a [f32])>, are_values: bool) {
    for (words, slot, row) in rows {
        let place: &mut [f32] = bytemuck::cast_slice_mut(words);
        if are_values {
            let stride = place.len() / PAGE_POSITIONS;
            place[slot * stride..][..row.len()].copy_from_slice(row);
        } else {
            place.chunks_exact_mut(PAGE_POSITIONS).zip(row).for_each(|(place, value)| place[slot] = *value);
        }
    }
}

/// Copies the first positions of a page of keys.
pub(super) fn copy_keys(from: &[u32], to: &mut [u32], positions: usize) {
    for (from, to) in from.chunks_exact(PAGE_POSITIONS).zip(to.chunks_exact_mut(PAGE_POSITIONS)) {
        to[..positions].copy_from_slice(&from[..positions]);
    }
}

/// Copies the first positions of a page of values.
pub(super) fn copy_values(from: &[u32], to: &mut [u32], positions: usize) {
    let words = positions * (from.len() / PAGE_POSITIONS);
    to[..words].copy_from_slice(&from[..words]);
}
