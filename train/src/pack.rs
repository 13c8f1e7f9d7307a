//! Sequences into steps: packed without padding, in an order that is a function of seed, epoch and step alone.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::tokens::Sequence;

/// Rows that go through the network at one time: more would only cost memory.
const MICRO_BATCH_ROWS: usize = 2048;

/// How the data is divided among optimizer steps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows (tokens but the last) of each sequence.
    lengths: Vec<usize>,
    /// Rows that fit into a micro-batch.
    capacity: usize,
    /// Micro-batches of a full step.
    per_step: usize,
    seed: u64,
    steps_per_epoch: usize,
}

impl Plan {
    /// A plan for `sequences`, none of them longer than `tokens_per_step`.
    pub fn new(sequences: &[Sequence], tokens_per_step: usize, max_sequence: usize, seed: u64) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len() - 1).collect();
        let capacity = tokens_per_step.min(MICRO_BATCH_ROWS.max(max_sequence));
        let per_step = tokens_per_step.div_ceil(capacity);
        // How many bins there are depends on the lengths alone, so it is the same in every epoch.
        let order: Vec<usize> = (0..lengths.len()).collect();
        let steps_per_epoch = best_fit_decreasing(&order, &lengths, capacity).len().div_ceil(per_step);
        Self { lengths, capacity, per_step, seed, steps_per_epoch }
    }

    /// Optimizer steps in one pass over the data.
    pub fn steps_per_epoch(&self) -> usize {
        self.steps_per_epoch
    }

    /// The micro-batches of an epoch by optimizer step, as indices of sequences.
    pub fn epoch(&self, epoch: usize) -> Vec<Vec<Vec<usize>>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(1 + epoch as u64);
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        order.shuffle(&mut random);
        let mut bins = best_fit_decreasing(&order, &self.lengths, self.capacity);
        bins.shuffle(&mut random);
        bins.chunks(self.per_step).map(<[_]>::to_vec).collect()
    }
}

/// Each item, the longest first (equal ones as in `order`), into the fullest bin that still holds it.
fn best_fit_decreasing(order: &[usize], lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut items = order.to_vec();
    items.sort_by_key(|&item| std::cmp::Reverse(lengths[item]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Bins by the room that is left in them; the last one opened is taken first.
    let mut room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for item in items {
        let length = lengths[item];
        let fullest = room.range(length..).next().map(|(&left, _)| left);
        let taken = fullest.and_then(|left| Some((room.get_mut(&left)?.pop()?, left)));
        let (bin, left) = taken.unwrap_or_else(|| {
            bins.push(Vec::new());
            (bins.len() - 1, capacity)
        });
        if room.get(&left).is_some_and(Vec::is_empty) {
            room.remove(&left);
        }
        bins[bin].push(item);
        room.entry(left.saturating_sub(length)).or_default().push(bin);
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(lengths: &[usize]) -> Vec<Sequence> {
        let of = |(index, &length): (usize, &usize)| Sequence {
            tokens: vec![0; length + 1],
            weights: vec![1.0; length + 1],
            index,
        };
        lengths.iter().enumerate().map(of).collect()
    }

    #[test]
    fn bins_are_full_and_hold_each_sequence_once() {
        let lengths: Vec<usize> = (0..200).map(|i| 20 + i * 37 % 180).collect();
        let plan = Plan::new(&sequences(&lengths), 512, 256, 7);
        let steps = plan.epoch(0);
        assert_eq!(steps.len(), plan.steps_per_epoch());
        let mut seen: Vec<usize> = steps.iter().flatten().flatten().copied().collect();
        let total: usize = lengths.iter().sum();
        assert!(steps.len() <= total.div_ceil(512) + 2, "{} bins for {total} rows", steps.len());
        for bin in steps.iter().flatten() {
            assert!(bin.iter().map(|&index| lengths[index]).sum::<usize>() <= 512);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_alone() {
        let data = sequences(&(0..50).map(|i| 10 + i % 9).collect::<Vec<_>>());
        let plan = Plan::new(&data, 100, 50, 3);
        assert_eq!(plan.epoch(1), Plan::new(&data, 100, 50, 3).epoch(1));
        assert_ne!(plan.epoch(1), plan.epoch(0));
        assert_ne!(plan.epoch(1), Plan::new(&data, 100, 50, 4).epoch(1));
        assert_eq!(plan.epoch(0).len(), plan.epoch(1).len());
    }

    #[test]
    fn large_steps_are_several_micro_batches() {
        let plan = Plan::new(&sequences(&[1000; 12]), 6000, 1001, 0);
        assert_eq!(plan.steps_per_epoch(), 2);
        assert_eq!(plan.epoch(0)[0].len(), 3);
    }
}
