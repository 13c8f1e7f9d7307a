//! A model's judgement of texts, as a number with what is known about it.
//!
//! A judge takes rendered conversations that end with the question to it ("Is every claim of the answer in the text?"), adds how
//! to answer, and reads the answers. It runs nothing itself: whoever runs it hands its requests to an engine.
//!
//! 1. [`Judge::probes`] asks the engine for little: which token begins each rating, and whether it can be held to a form.
//! 2. [`Judge::new`] reads the answers to those. Where the engine tells no log-probabilities, `expected` becomes `json`, and
//!    where it takes no form, `text`; [`Judge::notes`] says so.
//! 3. [`Judge::requests`] and [`Judge::read`] for each text. Planted texts, known to be good or bad, come first: [`calibrate`]
//!    says of their scores whether the judge can tell good from bad at all.
//!
//! Every reading gives a distribution over the ratings (log-probabilities renormalised over the ratings, or one rating with all
//! of it). The score is the mean of the distributions of all votes and orders, the spread its standard deviation.

mod area;
mod calibration;
mod config;
mod form;
mod judging;

pub use area::{AreaUnderCurve, area_under_curve};
pub use calibration::{Calibration, Planted, Policy, Quality, calibrate};
pub use config::{JudgeConfig, OnPoor, Reading, Swap};
pub use judging::{Heard, Judge, Judgement, Said};
