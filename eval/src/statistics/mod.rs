//! Statistics of answers, each in its own file with the source of its formula.
//!
//! For one model: [`wilson`] for right and wrong answers, [`mean`] for other scores and for items that hang together. For two
//! models on the same items: [`mcnemar`] or the t of [`mean`] says whether they differ, [`bootstrap`] by how much, [`equivalence`]
//! whether one is at most a margin worse, [`power`] what a number of items can show at all. For many claims at once:
//! [`multiple`]. For judges: [`agreement`] with others, and [`correlation`] with what should not matter.

pub mod agreement;
pub mod bootstrap;
pub mod correlation;
pub mod equivalence;
pub mod mcnemar;
pub mod mean;
pub mod multiple;
pub mod normal;
pub mod power;
pub mod student;
pub mod wilson;

use serde::{Deserialize, Serialize};

/// An interval, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}
