//! Constraints that were translated already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use espalier_model::Tokenizer;

use super::{Constraint, Guide, Guides};
use crate::error::EngineError;

/// So many guides are kept (each holds some hundred kilobytes); those used least recently go first.
const KEPT: usize = 64;

/// A guide, or what is wrong with its constraint; empty while it is being made.
type Slot = Arc<OnceLock<Result<Guide, String>>>;

/// The guides of the constraints that were used last, for one tokenizer.
#[derive(Default)]
pub(crate) struct Shelf {
    /// Made when the first constraint comes: it takes a while with a large vocabulary.
    guides: OnceLock<Result<Box<Guides>, String>>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    of: HashMap<Arc<Constraint>, (u64, Slot)>,
    /// Counts uses, to tell which was the last.
    uses: u64,
}

impl Shelf {
    /// Whether answers can have this form.
    ///
    /// # Errors
    /// What is wrong with the constraint.
    pub(crate) fn check(&self, tokenizer: &Tokenizer, constraint: &Arc<Constraint>) -> Result<(), EngineError> {
        self.with(tokenizer, constraint, |_| ())
    }

    /// A guide for an answer that begins.
    ///
    /// # Errors
    /// What is wrong with the constraint.
    pub(crate) fn guide(&self, tokenizer: &Tokenizer, constraint: &Arc<Constraint>) -> Result<Guide, EngineError> {
        self.with(tokenizer, constraint, Guide::restart)
    }

    fn with<R>(
        &self,
        tokenizer: &Tokenizer,
        constraint: &Arc<Constraint>,
        use_it: impl FnOnce(&Guide) -> R,
    ) -> Result<R, EngineError> {
        // The lock is not held while a guide is made: others go on, and who needs this one waits for it alone.
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).take(constraint);
        let made = slot.get_or_init(|| {
            let guides = self.guides.get_or_init(|| Guides::new(tokenizer).map(Box::new));
            guides.as_ref().map_err(Clone::clone)?.compile(constraint)
        });
        made.as_ref().map(use_it).map_err(|problem| constraint.broken(problem.clone()))
    }
}

impl Slots {
    fn take(&mut self, constraint: &Arc<Constraint>) -> Slot {
        self.uses += 1;
        if let Some((used, slot)) = self.of.get_mut(constraint) {
            *used = self.uses;
            return Arc::clone(slot);
        }
        if self.of.len() >= KEPT
            && let Some(oldest) = self.of.iter().min_by_key(|(_, (used, _))| used).map(|(key, _)| Arc::clone(key))
        {
            self.of.remove(&oldest);
        }
        let slot = Slot::default();
        self.of.insert(Arc::clone(constraint), (self.uses, Arc::clone(&slot)));
        slot
    }
}
