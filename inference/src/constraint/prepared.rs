//! The constraints of one call, each translated once.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{Constraint, Guide, Guides};
use crate::error::EngineError;

/// So many guides are kept for the length of a call (each holds some hundred kilobytes); where there are more different
/// constraints, a guide is made again as its answer begins.
const KEPT: usize = 64;

/// The constraints of the requests of one call.
pub(crate) struct Prepared<'a> {
    guides: Option<&'a Guides>,
    /// `Ok(None)` for one that is good, but not kept.
    checked: HashMap<&'a Constraint, Result<Option<Guide>, String>>,
}

impl<'a> Prepared<'a> {
    /// Translates each different constraint. `guides` is called only where there is one.
    pub(crate) fn new(
        constraints: impl Iterator<Item = &'a Constraint>,
        guides: impl FnOnce() -> Result<&'a Guides, String>,
    ) -> Self {
        let mut seen = HashSet::new();
        let different: Vec<&Constraint> = constraints.filter(|constraint| seen.insert(*constraint)).collect();
        if different.is_empty() {
            return Self { guides: None, checked: HashMap::new() };
        }
        match guides() {
            Ok(guides) => {
                let checked = different.into_par_iter().enumerate().map(|(index, constraint)| {
                    (constraint, guides.compile(constraint).map(|guide| (index < KEPT).then_some(guide)))
                });
                Self { guides: Some(guides), checked: checked.collect() }
            }
            Err(problem) => {
                let checked = different.into_iter().map(|constraint| (constraint, Err(problem.clone())));
                Self { guides: None, checked: checked.collect() }
            }
        }
    }

    /// Why answers cannot have this form.
    pub(crate) fn problem(&self, constraint: &Constraint) -> Option<EngineError> {
        self.checked.get(constraint)?.as_ref().err().map(|problem| constraint.broken(problem.clone()))
    }

    /// A guide for an answer that begins; none where the constraint has a problem.
    pub(crate) fn guide(&self, constraint: &Constraint) -> Option<Guide> {
        match self.checked.get(constraint)? {
            Ok(Some(guide)) => Some(guide.restart()),
            Ok(None) => self.guides?.compile(constraint).ok(),
            Err(_) => None,
        }
    }
}
