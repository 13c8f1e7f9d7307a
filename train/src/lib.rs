//! `LoRA` training: rows in, an adapter out.
//!
//! [`load`] reads the files of [`DataSource`]s into [`Sequences`]: rows become tokens with a weight each. [`train`] reads top
//! to bottom: sequences are mixed and packed into steps ([`pack`]), each step is a loss and a gradient of `espalier-nn`, an
//! update of [`optimizer::AdamW`] at the rate of [`schedule`], and now and then a [`checkpoint`]. The [`guard`] goes back to
//! one where a loss is no number or jumps.
//!
//! Everything is a function of model, data, settings, precision and instruction set. The number of threads, interruptions
//! and the clock change no byte.

mod base;
pub mod checkpoint;
mod collect;
mod config;
mod data;
mod encode;
mod error;
mod event;
pub mod guard;
pub mod memory;
pub mod metrics;
pub mod optimizer;
pub mod pack;
mod run;
pub mod schedule;
mod show;
mod start;
mod step;
mod teacher;
pub mod tensorboard;
pub mod tokens;
mod validation;

pub use collect::{DataProblems, DataProgress, load};
pub use config::{OverLong, TrainConfig};
pub use data::{DataItem, DataSource, Learned, RowKind};
pub use error::TrainError;
pub use espalier_nn::transformer::BaseWeights;
pub use espalier_nn::{Precision, profile};
pub use event::{Derived, TrainEvent, TrainPlan};
pub use memory::Bytes;
pub use run::{TrainOutcome, train};
pub use schedule::Schedule;
pub use show::{Marks, PackedRow, Stretch, first_step, marked_text, stretches};
pub use teacher::attach_teacher;
pub use tokens::{Sequence, Sequences, encode};
pub use validation::Best;
