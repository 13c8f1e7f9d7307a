//! A teacher's most probable tokens, row after row.

use std::ops::Range;

use espalier_kernels::ops::TeacherRows;

/// For each row the teacher's most probable tokens with the natural logarithms of their probabilities; a row may have none.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherTokens {
    /// One more than there are rows.
    offsets: Vec<usize>,
    tokens: Vec<u32>,
    log_probabilities: Vec<f32>,
}

impl Default for TeacherTokens {
    fn default() -> Self {
        Self { offsets: vec![0], tokens: Vec::new(), log_probabilities: Vec::new() }
    }
}

impl TeacherTokens {
    /// Adds a row. Tokens differ from each other; each has its logarithm.
    ///
    /// # Panics
    ///
    /// When there is not one logarithm for each token.
    pub fn push(&mut self, tokens: &[u32], log_probabilities: &[f32]) {
        assert_eq!(tokens.len(), log_probabilities.len(), "TeacherTokens: a logarithm belongs to each token");
        self.tokens.extend_from_slice(tokens);
        self.log_probabilities.extend_from_slice(log_probabilities);
        self.offsets.push(self.tokens.len());
    }

    /// Adds all rows of another.
    pub fn extend(&mut self, other: &Self) {
        for (tokens, log_probabilities) in other.iter() {
            self.push(tokens, log_probabilities);
        }
    }

    /// Adds rows without a teacher.
    pub fn extend_empty(&mut self, rows: usize) {
        self.offsets.extend(std::iter::repeat_n(self.tokens.len(), rows));
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives back what was kept ready for more rows.
    pub fn shrink(&mut self) {
        self.offsets.shrink_to_fit();
        self.tokens.shrink_to_fit();
        self.log_probabilities.shrink_to_fit();
    }

    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        size_of::<usize>() * self.offsets.capacity()
            + size_of::<u32>() * self.tokens.capacity()
            + size_of::<f32>() * self.log_probabilities.capacity()
    }

    /// Where the entries of a row lie.
    pub(super) fn entries(&self, row: usize) -> Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u32], &[f32])> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// Tokens and logarithms of a row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let entries = self.entries(row);
        (&self.tokens[entries.clone()], &self.log_probabilities[entries])
    }

    /// The given rows alone.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let mut selected = Self::default();
        for &row in rows {
            let (tokens, log_probabilities) = self.row(row);
            selected.push(tokens, log_probabilities);
        }
        selected
    }

    /// All rows for the kernel.
    pub(super) fn rows(&self, share: f32) -> TeacherRows<'_> {
        TeacherRows { offsets: &self.offsets, tokens: &self.tokens, log_probabilities: &self.log_probabilities, share }
    }
}
