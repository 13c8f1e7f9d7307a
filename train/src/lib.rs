//! `LoRA` training: conversations in, an adapter out.
//!
//! [`train`] reads top to bottom: conversations become tokens with a mask ([`tokens`]), these are packed into steps
//! ([`pack`]), each step is a loss and a gradient of `espalier-nn`, an update of [`optimizer::AdamW`] at the rate of
//! [`schedule`], and now and then a [`checkpoint`]. The [`guard`] goes back to one where a loss is no number or jumps.
//!
//! Everything is a function of model, data, settings, precision and instruction set. The number of threads, interruptions
//! and the clock change no byte.

mod base;
pub mod checkpoint;
mod config;
mod error;
mod event;
pub mod guard;
pub mod metrics;
pub mod optimizer;
pub mod pack;
mod run;
pub mod schedule;
mod step;
pub mod tokens;

pub use config::{OverLong, TrainConfig};
pub use error::TrainError;
pub use espalier_nn::{Precision, profile};
pub use event::{TrainEvent, TrainPlan};
pub use run::{TrainOutcome, train};
pub use tokens::show_batch;
