//! Rows compared by vectors: those of an embedding model, or without one of the words that stand in them.

mod choice;
mod twins;
mod vectors;

pub use choice::{Quota, choose, reject_over_quota};
pub use twins::{Near, nearest, reject_near_by_vectors, twins};
pub use vectors::Vectors;
