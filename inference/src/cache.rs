//! Keys and values of one sequence.

use std::ops::Range;

/// Positions by which a cache grows: rare enough not to copy often, small enough not to waste memory on short answers.
const GROWTH: usize = 128;

/// Keys and values of one layer, each `[positions, kv_heads * head_dim]` without gaps, as the attention kernel reads them.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl LayerCache {
    /// Forgets everything from `position` on.
    pub(crate) fn truncate(&mut self, position: usize, width: usize) {
        self.keys.truncate(position * width);
        self.values.truncate(position * width);
    }

    /// Appends the keys and values that stand in `rows` (each `stride` long) at `key` and `value`.
    pub(crate) fn append(&mut self, rows: &[f32], stride: usize, key: Range<usize>, value: Range<usize>) {
        let added = rows.len() / stride * key.len();
        let grown = (self.keys.len() + added).next_multiple_of(GROWTH * key.len());
        for buffer in [&mut self.keys, &mut self.values] {
            if buffer.capacity() < buffer.len() + added {
                buffer.reserve_exact(grown - buffer.len());
            }
        }
        for row in rows.chunks_exact(stride) {
            self.keys.extend_from_slice(&row[key.clone()]);
            self.values.extend_from_slice(&row[value.clone()]);
        }
    }

    /// All keys.
    pub(crate) fn keys(&self) -> &[f32] {
        &self.keys
    }

    /// All values.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// The cache of one sequence: a [`LayerCache`] for each layer.
#[derive(Debug)]
pub(crate) struct SequenceCache {
    pub(crate) layers: Vec<LayerCache>,
    /// `kv_heads * head_dim`.
    pub(crate) width: usize,
}

impl SequenceCache {
    /// An empty cache; memory comes with the first rows.
    pub(crate) fn new(layers: usize, width: usize) -> Self {
        Self { layers: (0..layers).map(|_| LayerCache::default()).collect(), width }
    }

    /// Makes room for so many positions, so that a sequence whose length is known grows without copies.
    pub(crate) fn reserve(&mut self, positions: usize) {
        let length = positions * self.width;
        for layer in &mut self.layers {
            for buffer in [&mut layer.keys, &mut layer.values] {
                buffer.reserve_exact(length.saturating_sub(buffer.len()));
            }
        }
    }

    /// Forgets everything but keeps the memory for the next sequence.
    pub(crate) fn clear(&mut self) {
        for layer in &mut self.layers {
            layer.truncate(0, self.width);
        }
    }

    /// Replaces the contents by the first `positions` of another sequence with the same tokens there. Keys and values of a
    /// position depend only on the tokens up to it, so they are the bits that computing them again would give.
    pub(crate) fn share_prefix(&mut self, other: &Self, positions: usize) {
        let length = positions * self.width;
        for (mine, theirs) in self.layers.iter_mut().zip(&other.layers) {
            for (to, from) in [(&mut mine.keys, &theirs.keys), (&mut mine.values, &theirs.values)] {
                to.clear();
                to.extend_from_slice(&from[..length]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_from_fused_rows_and_truncates() {
        let mut layer = LayerCache::default();
        // Two rows of [query 2 | key 1 | value 1].
        layer.append(&[0., 0., 1., 2., 0., 0., 3., 4.], 4, 2..3, 3..4);
        assert_eq!(layer.keys(), [1., 3.]);
        assert_eq!(layer.values(), [2., 4.]);
        layer.truncate(1, 1);
        layer.append(&[0., 0., 5., 6.], 4, 2..3, 3..4);
        assert_eq!(layer.keys(), [1., 5.]);
        assert_eq!(layer.values(), [2., 6.]);
    }

    #[test]
    fn a_shared_prefix_is_a_copy() {
        let mut first = SequenceCache::new(1, 1);
        first.layers[0].append(&[0., 1., 2., 0., 3., 4., 0., 5., 6.], 3, 1..2, 2..3);
        let mut second = SequenceCache::new(1, 1);
        second.layers[0].append(&[0., 9., 9.], 3, 1..2, 2..3);
        second.share_prefix(&first, 2);
        assert_eq!(second.layers[0].keys(), [1., 3.]);
        assert_eq!(second.layers[0].values(), [2., 4.]);
        second.clear();
        assert!(second.layers[0].keys().is_empty());
    }
}
