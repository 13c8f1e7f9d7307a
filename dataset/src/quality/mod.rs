//! Quality of rows: near-duplicates, rules, what must not stay in them, contamination by benchmarks, and the choice of the most
//! different ones.
//!
//! Every check sees a [`Sample`], whatever file the row came from, and gives a reason that a funnel can count.

mod cleaning;
mod contamination;
mod masking;
mod meaning;
mod near;
mod rules;
mod sample;
mod shingles;
mod words;

pub use cleaning::{Cleaning, CleaningReport, Deduplication, Found, Meaning, Outputs, clean};
pub use contamination::{Alike, Benchmarks, Contained, Hit, Item, Part, read_items};
pub use masking::{Masked, Personal, mask, mask_row};
pub use meaning::{Meanings, Near, Quota, RowVectors, SameMeaning, Vectors, choose, nearest, reject_over_quota};
pub use near::{Compared, Duplicate, Fingerprint, NearDuplicates, reject_near_duplicates, scratch_of};
pub use rules::{Bounds, Breach, Known, Language, Rule, Rules, Seeds};
pub use sample::Sample;
pub use shingles::Shingles;
