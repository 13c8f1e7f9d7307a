//! The order of query and key rows: Hugging Face pairs the halves of a head, GGUF's llama pairs neighbours.

/// How rows of a file map to rows in GGUF order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// The file has GGUF order.
    AsStored,
    /// The file has the two halves of each of `heads` heads one after the other, GGUF has them interleaved:
    /// `w.reshape(heads, 2, d / 2, columns).swapaxes(1, 2)`.
    Halves {
        /// Heads among which the rows divide.
        heads: usize,
    },
}

impl RowOrder {
    /// The row in the file of a row in GGUF order, of `rows` rows in all.
    pub(crate) fn stored(self, index: usize, rows: usize) -> usize {
        match self {
            Self::AsStored => index,
            Self::Halves { heads } => {
                let head_dim = rows / heads;
                let (head, within) = (index / head_dim, index % head_dim);
                head * head_dim + within % 2 * (head_dim / 2) + within / 2
            }
        }
    }

    /// The row in GGUF order of a row in the file, of `rows` rows in all: what [`RowOrder::stored`] undoes.
    pub(crate) fn in_gguf(self, stored: usize, rows: usize) -> usize {
        match self {
            Self::AsStored => stored,
            Self::Halves { heads } => {
                let head_dim = rows / heads;
                let (head, within) = (stored / head_dim, stored % head_dim);
                head * head_dim + within % (head_dim / 2) * 2 + within / (head_dim / 2)
            }
        }
    }

    /// From file order to GGUF order: `values` are rows of `columns` elements.
    pub(crate) fn to_gguf(self, values: &[f32], columns: usize) -> Vec<f32> {
        let rows = values.len() / columns.max(1);
        let order = (0..rows).flat_map(|row| {
            let from = self.stored(row, rows) * columns;
            values[from..from + columns].iter().copied()
        });
        order.collect()
    }

    /// From GGUF order to file order.
    pub(crate) fn to_file(self, values: &[f32], columns: usize) -> Vec<f32> {
        let rows = values.len() / columns.max(1);
        let mut stored = vec![0.0; values.len()];
        for row in 0..rows {
            let to = self.stored(row, rows) * columns;
            stored[to..to + columns].copy_from_slice(&values[row * columns..(row + 1) * columns]);
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_interleave_within_each_head_and_back() {
        // Two heads of six rows; reshape(2, 2, 3).swapaxes(1, 2).
        let file: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let order = RowOrder::Halves { heads: 2 };
        let gguf = order.to_gguf(&file, 1);
        assert_eq!(gguf, [0., 3., 1., 4., 2., 5., 6., 9., 7., 10., 8., 11.]);
        assert_eq!(order.to_file(&gguf, 1), file);
        assert!((0..12).all(|row| order.in_gguf(order.stored(row, 12), 12) == row));
        assert_eq!(RowOrder::AsStored.to_gguf(&file, 3), file);
    }
}
