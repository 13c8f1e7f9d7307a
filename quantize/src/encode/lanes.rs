//! Groups of a block side by side: `Lanes<L, N>[i][l]` is element `i` of group `l`.
//!
//! A loop over `l` inside a loop over `i` works on all groups at once, and keeps for each group the order of sums of a
//! loop over `i` alone.

/// `N` elements of `L` groups.
pub(super) type Lanes<T, const L: usize, const N: usize> = [[T; L]; N];

/// Sets `L` groups of `N` consecutive elements side by side.
#[inline(always)]
pub(super) fn side_by_side<const L: usize, const N: usize>(values: &[f32; 256]) -> Lanes<f32, L, N> {
    const { assert!(L * N == 256) };
    let mut lanes = [[0.0; L]; N];
    for (l, group) in values.as_chunks::<N>().0.iter().enumerate() {
        for (i, value) in group.iter().enumerate() {
            lanes[i][l] = *value;
        }
    }
    lanes
}

/// Sets `L` blocks of `N` elements side by side.
#[inline(always)]
pub(super) fn blocks_side_by_side<const L: usize, const N: usize>(blocks: &[&[f32; N]; L]) -> Lanes<f32, L, N> {
    let mut lanes = [[0.0; L]; N];
    for (l, block) in blocks.iter().enumerate() {
        for (i, value) in block.iter().enumerate() {
            lanes[i][l] = *value;
        }
    }
    lanes
}
