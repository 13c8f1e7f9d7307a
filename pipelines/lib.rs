//! Espalier: from a skills tree in YAML to a small, quantized model that measurably knows more than it did.
//!
//! This crate is the runner and the command line over the stages, which are crates of their own. Read [`runner`] to see
//! how a graph of stages is run, [`stages`] for what each of them reads and writes, [`commands`] for the command line.

pub mod bound;
pub mod cli;
pub mod commands;
pub mod content;
mod disk;
#[cfg(test)]
mod docs_are_current;
pub mod embedder;
pub mod events;
pub mod folder;
pub mod graph;
pub mod models;
pub mod outcome;
pub mod report;
pub mod reporter;
pub mod runner;
pub mod servers;
pub mod stages;
pub mod suggestion;
mod terminal;
