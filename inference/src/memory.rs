//! Memory that engines share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::EngineError;

/// Memory of engines that are used in turn: the weights of all, and the keys, values and buffers of the one that is at work.
///
/// Engines that are loaded with clones of it share it; what one takes is given back when it is dropped.
#[derive(Clone, Debug)]
pub struct EngineMemory {
    bytes: u64,
    taken: Arc<Mutex<Taken>>,
}

/// What each engine takes, by the number that it was given.
#[derive(Debug, Default)]
struct Taken {
    engines: BTreeMap<u64, Part>,
    numbers: u64,
}

/// What an engine takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Bytes of the weights.
    pub(crate) weights: usize,
    /// Bytes of the buffers of a pass.
    pub(crate) buffers: usize,
    /// Rows of such a pass.
    pub(crate) rows: usize,
    /// Bytes of one page of keys and values, the least to work with.
    pub(crate) page: usize,
}

/// The part of one engine, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: EngineMemory,
    number: u64,
}

impl EngineMemory {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, taken: Arc::default() }
    }

    /// Takes a part; refuses one with which an engine could not work any more.
    pub(crate) fn reserve(&self, part: Part) -> Result<Reservation, EngineError> {
        let mut taken = self.taken();
        self.check(&taken, None, part)?;
        taken.numbers += 1;
        let number = taken.numbers;
        taken.engines.insert(number, part);
        Ok(Reservation { memory: self.clone(), number })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every change is one insertion or removal.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `part` fits, in the place of that of `number` where there is one.
    fn check(&self, taken: &Taken, number: Option<u64>, part: Part) -> Result<(), EngineError> {
        let others = taken.engines.iter().filter(|(other, _)| Some(**other) != number).map(|(_, part)| part);
        let (mut engines, mut weights, mut at_work) = (1, part.weights, part.buffers + part.page);
        for other in others {
            engines += 1;
            weights += other.weights;
            at_work = at_work.max(other.buffers + other.page);
        }
        let least = (weights + at_work) as u64;
        if self.bytes >= least {
            return Ok(());
        }
        let of_engines = if engines > 1 { format!(" of {engines} engines") } else { String::new() };
        Err(EngineError::Option {
            option: "memory",
            problem: format!(
                "{} bytes are less than the {least} that the weights{of_engines}, the buffers of a pass over {} rows and one page \
                 of keys and values take; give more, or lower max_batch_tokens",
                self.bytes, part.rows
            ),
        })
    }
}

impl Reservation {
    /// Counts the weights anew; where they do not fit, what was counted stays.
    pub(crate) fn set_weights(&self, weights: usize) -> Result<(), EngineError> {
        let mut taken = self.memory.taken();
        let Some(&part) = taken.engines.get(&self.number) else { return Ok(()) };
        let part = Part { weights, ..part };
        self.memory.check(&taken, Some(self.number), part)?;
        taken.engines.insert(self.number, part);
        Ok(())
    }

    /// Bytes that are left for the keys and values of this engine while it is at work.
    pub(crate) fn left(&self) -> usize {
        let taken = self.memory.taken();
        let weights: usize = taken.engines.values().map(|part| part.weights).sum();
        let buffers = taken.engines.get(&self.number).map_or(0, |part| part.buffers);
        usize::try_from(self.memory.bytes).unwrap_or(usize::MAX).saturating_sub(weights + buffers)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.taken().engines.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn part(weights: usize, buffers: usize) -> Part {
        Part { weights, buffers, rows: 512, page: 10 }
    }

    #[test]
    fn weights_are_added_and_buffers_taken_in_turn() {
        let memory = EngineMemory::new(1000);
        let first = memory.reserve(part(300, 100)).unwrap();
        assert_eq!(first.left(), 600);
        let second = memory.clone().reserve(part(400, 50)).unwrap();
        assert_eq!((first.left(), second.left()), (200, 250));
        let error = memory.reserve(part(200, 20)).unwrap_err().to_string();
        assert!(
            error.contains("1000 bytes are less than the 1010 that the weights of 3 engines, the buffers"),
            "{error}"
        );
        first.set_weights(490).unwrap();
        assert!(first.set_weights(491).is_err());
        assert_eq!((first.left(), second.left()), (10, 60));
        drop(first);
        assert_eq!(second.left(), 550);
        let alone = EngineMemory::new(409).reserve(part(300, 100)).unwrap_err().to_string();
        assert!(alone.contains("less than the 410 that the weights, the buffers of a pass over 512 rows"), "{alone}");
    }
}
