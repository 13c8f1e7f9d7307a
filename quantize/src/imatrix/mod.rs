//! Importance matrices: how strongly each column of a weight matrix is used on some text.
//!
//! For every matrix the squares of its inputs are summed column by column. A column that sees large inputs costs more when
//! its weights are rounded; the encoders weigh their errors by the mean square. The files are llama.cpp's, in its GGUF form
//! and in the older `.dat` form.

mod collect;
mod file;
mod legacy;
mod statistics;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

pub use self::collect::importance;
pub(crate) use self::collect::usual_squares;
pub use self::statistics::TensorStatistics;
use crate::QuantizeError;

/// Tokens of a chunk where nothing says another number, as in llama-imatrix.
pub const CHUNK_TOKENS: u32 = 512;

/// What was summed of the inputs of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// Sums of squares: the columns of each matrix, matrix by matrix.
    sums: Vec<f32>,
    /// Rows of input that went into the sums; one for each matrix (expert), or one for all.
    counts: Vec<u64>,
}

impl Importance {
    /// `sums` hold the columns of each matrix, `counts` one number for each matrix or one for all.
    ///
    /// # Errors
    ///
    /// In words, when there are no sums, when the counts do not divide them evenly, or a sum is negative or no number.
    pub fn new(sums: Vec<f32>, counts: Vec<u64>) -> Result<Self, String> {
        if sums.is_empty() || counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
            return Err(format!("{} sums do not divide into {} matrices", sums.len(), counts.len()));
        }
        match sums.iter().position(|sum| !sum.is_finite() || *sum < 0.0) {
            Some(column) => Err(format!("sum {column} is {}, not a sum of squares", sums[column])),
            None => Ok(Self { sums, counts }),
        }
    }

    /// Sums of squares, the columns of each matrix one after another.
    pub fn sums(&self) -> &[f32] {
        &self.sums
    }

    /// Rows of input behind the sums, for each matrix or for all.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Mean squares, which the encoders weigh with, as llama-quantize derives them: a matrix that saw no row counts 1 in
    /// every column.
    pub fn means(&self) -> Vec<f32> {
        let columns = self.sums.len() / self.counts.len();
        let matrices = self.sums.chunks_exact(columns).zip(&self.counts);
        matrices
            .flat_map(|(sums, &count)| sums.iter().map(move |sum| if count == 0 { 1.0 } else { sum / count as f32 }))
            .collect()
    }

    /// Part of the matrices (experts) that no row reached.
    pub fn unseen(&self) -> f64 {
        self.counts.iter().filter(|&&count| count == 0).count() as f64 / self.counts.len() as f64
    }

    /// The sums of both texts.
    fn add(&mut self, other: &Self) -> Result<(), String> {
        if self.sums.len() != other.sums.len() || self.counts.len() != other.counts.len() {
            let sizes = |one: &Self| format!("{} sums of {} matrices", one.sums.len(), one.counts.len());
            return Err(format!("{} and {} are not of one model", sizes(self), sizes(other)));
        }
        for (sum, other) in self.sums.iter_mut().zip(&other.sums) {
            *sum += other;
        }
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*other);
        }
        Ok(())
    }
}

/// The importance of every tensor, and the texts that it was measured on.
///
/// ```
/// use espalier_quantize::{Importance, ImportanceMatrix};
///
/// let mut matrix = ImportanceMatrix::new(vec!["rows.parquet".to_owned()], 1, 512);
/// matrix.insert("blk.0.ffn_up.weight", Importance::new(vec![8.0, 2.0], vec![4])?);
/// assert_eq!(matrix.means("blk.0.ffn_up.weight", 2, 1)?.as_deref(), Some([2.0, 0.5].as_slice()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ImportanceMatrix {
    entries: BTreeMap<String, Importance>,
    datasets: Vec<String>,
    chunks: u32,
    chunk_tokens: u32,
}

impl ImportanceMatrix {
    /// A matrix without entries, from texts of these names, cut into so many chunks of so many tokens.
    pub fn new(datasets: Vec<String>, chunks: u32, chunk_tokens: u32) -> Self {
        Self { entries: BTreeMap::new(), datasets, chunks, chunk_tokens }
    }

    /// Reads a file of either form.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is neither form, or holds sums that are no sums of squares.
    pub fn read(path: &Path) -> Result<Self, QuantizeError> {
        file::read(path)
    }

    /// Writes llama.cpp's GGUF form; the file appears under its name when it is complete.
    ///
    /// # Errors
    ///
    /// When a tensor's name is too long for the format, or the disk refuses.
    pub fn write(&self, path: &Path) -> Result<(), QuantizeError> {
        file::write(self, path)
    }

    /// The bytes of the older `.dat` form, for readers that know no other. It keeps one count a tensor and one dataset.
    pub fn to_legacy(&self) -> Vec<u8> {
        legacy::encode(self)
    }

    /// Sets the importance of a tensor, by its GGUF name.
    pub fn insert(&mut self, tensor: impl Into<String>, importance: Importance) {
        self.entries.insert(tensor.into(), importance);
    }

    /// What was summed for a tensor.
    pub fn get(&self, tensor: &str) -> Option<&Importance> {
        self.entries.get(tensor)
    }

    /// The mean squares for a tensor of `matrices` matrices with rows of `columns`: `matrices * columns` values, or none
    /// when the tensor was not measured.
    ///
    /// # Errors
    ///
    /// When the entry has another length: it is of another model.
    pub fn means(
        &self,
        tensor: &str,
        columns: usize,
        matrices: usize,
    ) -> Result<Option<Cow<'_, [f32]>>, QuantizeError> {
        let Some(importance) = self.entries.get(tensor) else { return Ok(None) };
        let needed = columns * matrices;
        if importance.sums.len() != needed {
            return Err(QuantizeError::ForeignImportance {
                tensor: tensor.to_owned(),
                found: importance.sums.len(),
                needed,
            });
        }
        Ok(Some(Cow::Owned(importance.means())))
    }

    /// Tensors and their importance, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Importance)> {
        self.entries.iter().map(|(name, importance)| (name.as_str(), importance))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no tensor was measured.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names of the texts.
    pub fn datasets(&self) -> &[String] {
        &self.datasets
    }

    /// Chunks that were read.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Tokens of a chunk.
    pub fn chunk_tokens(&self) -> u32 {
        self.chunk_tokens
    }

    /// Adds the sums of other texts on the same model.
    ///
    /// # Errors
    ///
    /// When a tensor has another shape in `other`; this matrix is then as it was.
    pub fn merge(&mut self, other: &Self) -> Result<(), QuantizeError> {
        let mut entries = self.entries.clone();
        for (name, importance) in &other.entries {
            match entries.get_mut(name) {
                None => drop(entries.insert(name.clone(), importance.clone())),
                Some(entry) => entry
                    .add(importance)
                    .map_err(|problem| QuantizeError::UnlikeImportance { tensor: name.clone(), problem })?,
            }
        }
        self.entries = entries;
        self.datasets.extend(other.datasets.iter().cloned());
        self.chunks = self.chunks.saturating_add(other.chunks);
        Ok(())
    }

    /// What the sums of each tensor look like, in the order of names.
    pub fn statistics(&self) -> Vec<TensorStatistics> {
        statistics::of(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed test may panic; exact values are meant")]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_without_rows_counts_one_in_every_column() {
        let importance = Importance::new(vec![2.0, 4.0, 7.0, 9.0], vec![2, 0]).unwrap();
        assert_eq!(importance.means(), [1.0, 2.0, 1.0, 1.0]);
        assert_eq!(importance.unseen(), 0.5);
    }

    #[test]
    fn what_is_no_sum_of_squares_is_refused() {
        for (sums, counts) in [
            (vec![], vec![1]),
            (vec![1.0], vec![]),
            (vec![1.0; 3], vec![1, 1]),
            (vec![f32::NAN], vec![1]),
            (vec![f32::INFINITY], vec![1]),
            (vec![-1.0], vec![1]),
        ] {
            assert!(Importance::new(sums.clone(), counts.clone()).is_err(), "{sums:?} {counts:?}");
        }
    }

    #[test]
    fn another_models_tensor_is_named() {
        let mut matrix = ImportanceMatrix::new(Vec::new(), 1, CHUNK_TOKENS);
        matrix.insert("blk.0.attn_q.weight", Importance::new(vec![1.0; 4], vec![1]).unwrap());
        assert_eq!(matrix.means("blk.0.attn_q.weight", 2, 2).unwrap().unwrap().len(), 4);
        assert!(matrix.means("blk.1.attn_q.weight", 8, 1).unwrap().is_none());
        let error = matrix.means("blk.0.attn_q.weight", 8, 1).unwrap_err().to_string();
        assert!(error.contains("blk.0.attn_q.weight") && error.contains("another model"), "{error}");
    }

    #[test]
    fn merging_adds_sums_and_counts_or_changes_nothing() {
        let entry = |sums: &[f32], count| Importance::new(sums.to_vec(), vec![count]).unwrap();
        let mut one = ImportanceMatrix::new(vec!["a".into()], 2, CHUNK_TOKENS);
        one.insert("x", entry(&[1.0, 2.0], 3));
        let mut two = ImportanceMatrix::new(vec!["b".into()], 5, CHUNK_TOKENS);
        two.insert("x", entry(&[10.0, 20.0], 4));
        two.insert("y", entry(&[1.0], 4));
        one.merge(&two).unwrap();
        assert_eq!(one.get("x").unwrap(), &entry(&[11.0, 22.0], 7));
        assert_eq!((one.len(), one.chunks(), one.datasets()), (2, 7, ["a".to_owned(), "b".to_owned()].as_slice()));
        let before = one.clone();
        let mut three = ImportanceMatrix::new(Vec::new(), 1, CHUNK_TOKENS);
        three.insert("a", entry(&[1.0], 1));
        three.insert("x", entry(&[1.0], 1));
        one.merge(&three).unwrap_err();
        assert_eq!(one, before);
    }
}
