//! Statistics of right and wrong answers, each in its own file with the source of its formula.
//!
//! For one model: [`wilson`]. For two models on the same items: [`mcnemar`] says whether they differ, [`bootstrap`] by how much,
//! [`equivalence`] whether one is at most a margin worse and what a number of items can show at all. For many claims at once:
//! [`holm`].

pub mod bootstrap;
pub mod equivalence;
pub mod holm;
pub mod mcnemar;
pub mod normal;
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
