//! Sequences into steps: mixed by the weights of their sources and leaves and packed without padding, in an order that is a
//! function of seed, epoch and step alone.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::TrainConfig;
use crate::tokens::Sequences;

/// How the data is divided among optimizer steps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows (tokens but the last) of each sequence.
    lengths: Vec<usize>,
    /// How the sequences of each source are drawn, those of each leaf with a weight of its own by themselves.
    mixing: Vec<Mixing>,
    /// Rows that fit into a micro-batch.
    capacity: usize,
    /// Micro-batches of a full step.
    per_step: usize,
    seed: u64,
    /// Steps up to the end of each epoch.
    ends: Vec<usize>,
    steps: usize,
}

/// Sequences of a source that come equally often, in an order of their own. Epochs take consecutive stretches of it, round and
/// round: each row comes equally often, and none a second time before all others came.
#[derive(Clone, Debug)]
struct Mixing {
    order: Vec<usize>,
    weight: f64,
}

/// Which rows come equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// Those of a source.
    Source(usize),
    /// Those of a source that are of a leaf with a weight of its own.
    Leaf { source: usize, leaf: Option<usize>, weight: u64 },
}

impl Group {
    fn of_rows(data: &Sequences) -> BTreeMap<Self, Vec<usize>> {
        let mut groups: BTreeMap<Self, Vec<usize>> = BTreeMap::new();
        for (number, row) in data.rows.iter().enumerate() {
            let weight = row.leaf_weight.map(f64::to_bits).filter(|weight| *weight != 1.0_f64.to_bits());
            let group = match weight {
                None => Self::Source(row.source),
                Some(weight) => Self::Leaf { source: row.source, leaf: row.leaf, weight },
            };
            groups.entry(group).or_default().push(number);
        }
        groups
    }
}

impl Mixing {
    fn epoch(&self, epoch: usize) -> impl Iterator<Item = usize> {
        let until = |epoch: usize| (self.order.len() as f64 * self.weight * epoch as f64).floor() as usize;
        (until(epoch)..until(epoch + 1)).map(|place| self.order[place % self.order.len()])
    }
}

impl Plan {
    /// The plan of a run with `data`, no sequence of which has more than `micro_batch_rows`.
    pub fn new(data: &Sequences, config: &TrainConfig, micro_batch_rows: usize) -> Self {
        let TrainConfig { tokens_per_step, seed, .. } = *config;
        let lengths: Vec<usize> = data.rows.iter().map(|sequence| sequence.tokens.len() - 1).collect();
        // Epochs use the streams from 1 upwards, sources those from the last one downwards, and leaves those below them.
        let mut leaves = data.mixing.len()..;
        let mixing = Group::of_rows(data).into_iter().map(|(group, mut order)| {
            let stream = match group {
                Group::Source(source) => source,
                Group::Leaf { .. } => leaves.next().unwrap_or_default(),
            };
            let weight = order.first().map_or(0.0, |&row| data.often(&data.rows[row]));
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(u64::MAX - stream as u64);
            order.shuffle(&mut random);
            Mixing { order, weight }
        });
        let mixing: Vec<Mixing> = mixing.collect();
        let capacity = tokens_per_step.min(micro_batch_rows);
        let per_step = tokens_per_step.div_ceil(capacity);
        let mut plan = Self { lengths, mixing, capacity, per_step, seed, ends: Vec::new(), steps: 0 };
        let more = |plan: &Self| config.max_steps.map_or(plan.ends.len() < config.epochs, |steps| plan.steps < steps);
        while !plan.mixing.is_empty() && more(&plan) {
            // How many bins there are depends on the lengths alone.
            let bins = best_fit_decreasing(&plan.rows(plan.ends.len()), &plan.lengths, capacity).len();
            plan.steps += bins.div_ceil(per_step);
            plan.ends.push(plan.steps);
        }
        plan.steps = config.max_steps.unwrap_or(plan.steps).min(plan.steps);
        plan
    }

    /// Optimizer steps of the run.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Optimizer steps of the first epoch; those of others differ where a source has a weight other than 1.
    pub fn steps_per_epoch(&self) -> usize {
        self.ends.first().copied().unwrap_or_default()
    }

    /// The epoch of a step of the run, both counted from 0, and its place in it.
    pub fn place(&self, step: usize) -> (usize, usize) {
        let epoch = self.ends.partition_point(|&end| end <= step);
        (epoch, step - epoch.checked_sub(1).map_or(0, |before| self.ends[before]))
    }

    /// The sequences of an epoch, in the order of the data; those of a source or leaf with a weight of 2 come twice.
    pub fn rows(&self, epoch: usize) -> Vec<usize> {
        let mut rows: Vec<usize> = self.mixing.iter().flat_map(|source| source.epoch(epoch)).collect();
        rows.sort_unstable();
        rows
    }

    /// The micro-batches of an epoch by optimizer step, as indices of sequences.
    pub fn epoch(&self, epoch: usize) -> Vec<Vec<Vec<usize>>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(1 + epoch as u64);
        let mut order = self.rows(epoch);
        order.shuffle(&mut random);
        let mut bins = best_fit_decreasing(&order, &self.lengths, self.capacity);
        bins.shuffle(&mut random);
        if epoch == 0 && !bins.is_empty() {
            // Memory that does not suffice shows in the first step of a run.
            let rows = |bin: &Vec<usize>| bin.iter().map(|&row| self.lengths[row]).sum::<usize>();
            let fullest = (0..bins.len()).rev().max_by_key(|&bin| rows(&bins[bin])).unwrap_or_default();
            bins.swap(0, fullest);
        }
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
    use crate::tokens::Sequence;

    fn sequences(lengths: &[usize]) -> Sequences {
        mixed(&[(lengths, 1.0)])
    }

    /// Sources of rows of these lengths, with their weights.
    fn mixed(sources: &[(&[usize], f64)]) -> Sequences {
        let mut data = Sequences::default();
        for (source, (lengths, weight)) in sources.iter().enumerate() {
            data.mixing.push(*weight);
            data.rows.extend(lengths.iter().map(|&length| Sequence {
                tokens: vec![0; length + 1],
                weights: vec![1.0; length + 1],
                source,
                ..Sequence::default()
            }));
        }
        data
    }

    fn config(tokens_per_step: usize, max_sequence: usize, seed: u64) -> TrainConfig {
        TrainConfig { tokens_per_step, max_sequence, seed, epochs: 1, ..TrainConfig::default() }
    }

    #[test]
    fn bins_are_full_and_hold_each_sequence_once() {
        let lengths: Vec<usize> = (0..200).map(|i| 20 + i * 37 % 180).collect();
        let plan = Plan::new(&sequences(&lengths), &config(512, 256, 7), 2048);
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
        let plan = Plan::new(&data, &config(100, 50, 3), 2048);
        assert_eq!(plan.epoch(1), Plan::new(&data, &config(100, 50, 3), 2048).epoch(1));
        assert_ne!(plan.epoch(1), plan.epoch(0));
        assert_ne!(plan.epoch(1), Plan::new(&data, &config(100, 50, 4), 2048).epoch(1));
        assert_eq!(plan.epoch(0).len(), plan.epoch(1).len());
    }

    #[test]
    fn large_steps_are_several_micro_batches() {
        let plan = Plan::new(&sequences(&[1000; 12]), &config(6000, 1001, 0), 2048);
        assert_eq!(plan.steps_per_epoch(), 2);
        assert_eq!(plan.epoch(0)[0].len(), 3);
    }

    #[test]
    fn a_source_is_thinned_or_repeated_by_its_weight() {
        let data = mixed(&[(&[10; 40], 1.0), (&[10; 100], 0.25), (&[10; 6], 2.0)]);
        let plan = Plan::new(&data, &config(100, 50, 3), 2048);
        let of = |epoch: usize, from: usize, to: usize| -> Vec<usize> {
            plan.rows(epoch).into_iter().filter(|row| (from..to).contains(row)).collect()
        };
        let mut quarters = Vec::new();
        for epoch in 0..4 {
            assert_eq!(of(epoch, 0, 40), (0..40).collect::<Vec<_>>());
            assert_eq!(of(epoch, 140, 146), (140..146).flat_map(|row| [row; 2]).collect::<Vec<_>>());
            assert_eq!(of(epoch, 40, 140).len(), 25);
            quarters.extend(of(epoch, 40, 140));
        }
        assert_eq!(of(4, 40, 140), quarters[..25], "the fifth epoch begins anew");
        quarters.sort_unstable();
        assert_eq!(quarters, (40..140).collect::<Vec<_>>());
        // Another seed takes other rows first.
        assert_ne!(Plan::new(&data, &config(100, 50, 4), 2048).rows(0), plan.rows(0));
    }

    #[test]
    fn a_leaf_is_thinned_or_repeated_by_its_weight() {
        let mut data = mixed(&[(&[10; 60], 1.0), (&[10; 12], 2.0)]);
        let plain = Plan::new(&data, &config(100, 50, 3), 2048);
        let weigh = |data: &mut Sequences, rows: std::ops::Range<usize>, leaf, weight| {
            for row in &mut data.rows[rows] {
                (row.leaf, row.leaf_weight) = (Some(leaf), Some(weight));
            }
        };
        weigh(&mut data, 0..10, 0, 1.0);
        assert_eq!(Plan::new(&data, &config(100, 50, 3), 2048).epoch(0), plain.epoch(0), "once is what it was");
        weigh(&mut data, 10..30, 1, 0.25);
        weigh(&mut data, 30..40, 2, 2.5);
        // The weight of a source multiplies that of its leaf.
        weigh(&mut data, 60..64, 2, 1.5);
        let plan = Plan::new(&data, &config(100, 50, 3), 2048);
        let times = |epochs: std::ops::Range<usize>| {
            let mut times = [0; 72];
            epochs.flat_map(|epoch| plan.rows(epoch)).for_each(|row| times[row] += 1);
            times
        };
        let first = times(0..1);
        assert_eq!(first[10..30].iter().sum::<usize>(), 5);
        assert_eq!(first[30..40].iter().sum::<usize>(), 25);
        assert!(first[30..40].iter().all(|times| [2, 3].contains(times)), "{first:?}");
        assert!(first[60..64].iter().all(|times| *times == 3) && first[64..].iter().all(|times| *times == 2));
        assert!(first[..10].iter().chain(&first[40..60]).all(|times| *times == 1));
        let four = times(0..4);
        assert!(
            four[10..30].iter().all(|times| *times == 1) && four[30..40].iter().all(|times| *times == 10),
            "{four:?}"
        );
        // Leaves of one weight are drawn by themselves: each gives its share.
        weigh(&mut data, 40..44, 3, 0.25);
        let more = Plan::new(&data, &config(100, 50, 3), 2048).rows(0);
        assert_eq!(more.iter().filter(|row| (40..44).contains(*row)).count(), 1);
        assert_ne!(Plan::new(&data, &config(100, 50, 4), 2048).rows(0), more);
    }

    #[test]
    fn epochs_of_different_lengths_follow_each_other() {
        let data = mixed(&[(&[50, 50, 50], 0.5)]);
        let plan = Plan::new(&data, &TrainConfig { epochs: 4, ..config(50, 50, 0) }, 2048);
        let lengths: Vec<usize> = (0..4).map(|epoch| plan.epoch(epoch).len()).collect();
        assert_eq!(lengths, [1, 2, 1, 2]);
        let places: Vec<(usize, usize)> = (0..6).map(|step| plan.place(step)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]);
        assert_eq!(plan.steps(), 6);
        let cut = Plan::new(&data, &TrainConfig { max_steps: Some(5), ..config(50, 50, 0) }, 2048);
        assert_eq!((cut.steps(), cut.place(4)), (5, (3, 0)));
        // An epoch may have no row at all.
        let rare = mixed(&[(&[50], 0.4), (&[], 1.0)]);
        assert_eq!(Plan::new(&rare, &TrainConfig { epochs: 2, ..config(50, 50, 0) }, 2048).steps(), 0);
        let rare = Plan::new(&rare, &TrainConfig { max_steps: Some(1), ..config(50, 50, 0) }, 2048);
        assert_eq!((rare.steps(), rare.place(0)), (1, (2, 0)));
        assert_eq!(Plan::new(&mixed(&[]), &TrainConfig { max_steps: Some(1), ..config(50, 50, 0) }, 2048).steps(), 0);
    }
}
