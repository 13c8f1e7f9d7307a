//! Rows compared by vectors: those of an embedding model, or without one of the words that stand in them.

mod choice;
mod rows;
mod twins;
mod vectors;

pub use choice::{Quota, choose, reject_over_quota};
pub use rows::RowVectors;
pub(crate) use twins::floor;
pub use twins::{Meanings, Near, SameMeaning, nearest};
pub use vectors::Vectors;
