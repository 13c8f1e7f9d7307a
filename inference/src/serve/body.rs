//! Bodies of requests, and how much of them is held.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::Limits;
use super::problem::Problem;

/// Bytes of bodies that are held at the moment, for all connections.
#[derive(Debug, Default)]
pub(super) struct Held(AtomicUsize);

/// A body, counted in [`Held`] while it lives.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) bytes: Vec<u8>,
    pub(super) held: &'a Held,
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Body<'_> {
    /// Takes bytes over, if one body and all together may still grow.
    pub(super) fn extend(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Problem> {
        if self.bytes.len() + bytes.len() > limits.body_bytes {
            return Err(Problem::too_large(limits.body_bytes));
        }
        let before = self.held.0.fetch_add(bytes.len(), Ordering::Relaxed);
        if before + bytes.len() > limits.all_body_bytes {
            self.held.0.fetch_sub(bytes.len(), Ordering::Relaxed);
            return Err(Problem::busy("the bodies of other requests take all memory set apart for them"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
