//! Generation with a scripted teacher: each flow, and what goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic")]

mod conversations;
mod failures;
mod flows;
mod teacher;
