//! Bad input end to end: each gets one message with its place and a remedy, an exit code, and leaves nothing half-written;
//! once it is mended, the next run goes on.

#[path = "../binary/mod.rs"]
mod binary;

mod disk;
mod models;
mod network;
mod output;
mod pipeline_file;
mod trees;
