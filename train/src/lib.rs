//! `LoRA` training: rows in, an adapter out.
//!
//! [`RunData::load`] reads the files of [`RunSources`]: rows become tokens with a weight each ([`Sequences`]), to train on or
//! to look at. [`train`] reads top to bottom: sequences are mixed and packed into steps ([`pack`]), each step is a loss and a gradient of `espalier-nn`, an
//! update of [`optimizer::AdamW`] at the rate of [`schedule`], and now and then a [`checkpoint`], with a look at held-out rows
//! and at general text. The [`guard`] goes back to a checkpoint where a loss is no number or jumps.
//!
//! Everything is a function of model, data, settings, precision and instruction set. The number of threads, interruptions
//! and the clock change no byte.

mod base;
pub mod checkpoint;
mod collect;
mod config;
mod data;
mod derived;
mod encode;
mod error;
mod event;
mod forgetting;
mod greedy;
pub mod guard;
pub mod memory;
pub mod metrics;
pub mod optimizer;
pub mod pack;
mod run;
mod run_data;
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
pub use data::{DataItem, DataSource, Learned, RowKind, Validation};
pub use error::TrainError;
pub use espalier_nn::transformer::BaseWeights;
pub use espalier_nn::{DeviceError, DeviceName, Precision, device_list, profile};
pub use event::{Derived, TrainEvent, TrainPlan};
pub use greedy::greedy;
pub use memory::Bytes;
pub use run::{TrainOutcome, train};
pub use run_data::{RunData, RunSources};
pub use schedule::Schedule;
pub use show::{Marks, PackedRow, Stretch, first_step, marked_text, stretches};
pub use teacher::attach_teacher;
pub use tokens::{Sequence, Sequences, encode};
pub use validation::{Best, Metric};
