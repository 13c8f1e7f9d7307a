//! Flows with a scripted engine and with a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic")]

mod blocks;
mod checks;
mod conversations;
mod documented;
mod golden;
mod rounds;
mod running;
mod script;
mod shipped;
